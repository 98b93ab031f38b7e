"""Marian's translators (Junczys-Dowmunt et al. 2018, arXiv 1804.00344; OPUS-MT: Tiedemann and Thottingal 2020) and
PEGASUS (Zhang et al. 2020, 1912.08777): Transformers whose sinusoids hold all sines first. OPUS-MT's models use SiLU
and may have a vocabulary for each side; PEGASUS norms before each sub-layer."""

import functools

from lm.model.positions import Sinusoidal
from lm.zoo.bart import variant
from lm.zoo.family import Family

SIZES = {"opus-mt-en-de": {"layers": 6, "d_model": 512, "heads": 8, "vocab": 58101}}
PEGASUS = {"large": {"layers": 16, "d_model": 1024, "heads": 16}}


def sinusoids(rows: int) -> Sinusoidal:
    """A table of sinusoids that files hold: what they hold counts."""
    return Sinusoidal(layout="halves", rows=rows)


fixed = functools.partial(variant, position=sinusoids(512), scaled=True)

FAMILIES = {
    "marian": Family(functools.partial(fixed, vocab=58101, activation="silu"), SIZES, "arXiv 1804.00344"),
    "pegasus": Family(
        functools.partial(fixed, vocab=96103, activation="relu", norm_first=True, position=sinusoids(1024)),
        PEGASUS,
        "arXiv 1912.08777",
    ),
}
