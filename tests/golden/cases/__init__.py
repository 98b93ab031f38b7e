"""The goldens' models, by kind."""

from tests.golden.case import Case
from tests.golden.cases import (
    classifiers,
    decoders,
    deepseek,
    encdec_bart,
    encdec_t5,
    encdec_towers,
    encoders,
    encoders_relative,
    encoders_window,
    experts,
    experts_balanced,
    further,
    recent,
    xlnet,
)

CASES: dict[str, Case] = {
    name: case
    for group in (
        decoders,
        recent,
        further,
        deepseek,
        experts,
        experts_balanced,
        classifiers,
        encdec_t5,
        encdec_bart,
        encdec_towers,
        encoders,
        encoders_relative,
        encoders_window,
        xlnet,
    )
    for name, case in group.CASES.items()
}
