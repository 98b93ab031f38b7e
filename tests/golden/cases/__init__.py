"""The goldens' models, by kind."""

from tests.golden.case import Case
from tests.golden.cases import classifiers, decoders

CASES: dict[str, Case] = {
    name: case
    for group in (
        decoders,
        classifiers,
    )
    for name, case in group.CASES.items()
}
