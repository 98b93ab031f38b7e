"""M2M-100 (Fan et al. 2020, arXiv 2010.11125) and NLLB-200's dense models (2022, 2207.04672): Transformers that norm
before each sub-layer, with the sinusoids of fairseq, whose first token stands behind the padding id."""

import functools

from lm.model.positions import Sinusoidal
from lm.zoo.bart import variant
from lm.zoo.family import Family

SIZES = {
    "418m": {"layers": 12, "d_model": 1024, "heads": 16},
    "1.2b": {"layers": 24, "d_model": 1024, "heads": 16, "d_ff": 8192},
}
NLLB = {
    "distilled-600m": {"layers": 12, "d_model": 1024, "heads": 16},
    "1.3b": {"layers": 24, "d_model": 1024, "heads": 16, "d_ff": 8192},
    "3.3b": {"layers": 24, "d_model": 2048, "heads": 16},
}

m2m = functools.partial(
    variant,
    vocab=128112,
    position=Sinusoidal(layout="fairseq", offset=2),
    activation="relu",
    norm_first=True,
    scaled=True,
    logit_offset=False,
)

FAMILIES = {
    "m2m": Family(m2m, SIZES, "arXiv 2010.11125"),
    "nllb": Family(functools.partial(m2m, vocab=256206), NLLB, "arXiv 2207.04672"),
}
