"""BART (Lewis et al. 2020, arXiv 1910.13461), mBART (Liu et al. 2020, 2001.08210; mBART-50: Tang et al. 2020,
2008.00401) and PLBART (Ahmad et al. 2021, 2103.06333): Transformers with GELU, biases everywhere, learned positions
that begin at row 2, normed embeddings. mBART norms before each sub-layer and at the end of each tower."""

import functools

from lm.model.layers import LayerNorm
from lm.model.positions import Learned
from lm.zoo.family import Family
from lm.zoo.transformer import transformer

OFFSET = 2
SIZES = {
    "base": {"layers": 6, "d_model": 768, "heads": 12},
    "large": {"layers": 12, "d_model": 1024, "heads": 16},
}
MBART = {
    "25": {"layers": 12, "d_model": 1024, "heads": 16, "vocab": 250027},
    "50": {"layers": 12, "d_model": 1024, "heads": 16, "vocab": 250054},
}
PLBART = {
    "base": {"layers": 6, "d_model": 768, "heads": 12},
    "large": {"layers": 12, "d_model": 1024, "heads": 16},
}

# What transformers has in common that were written for it by the same hands, here and in the files beside.
variant = functools.partial(
    transformer, activation="gelu", norm=LayerNorm(1e-5), attention_bias=True, logit_offset=True, scaled=False
)
bart = functools.partial(variant, vocab=50265, position=Learned(1024 + OFFSET, OFFSET), embed_norm=True)

FAMILIES = {
    "bart": Family(bart, SIZES, "arXiv 1910.13461"),
    "mbart": Family(functools.partial(bart, norm_first=True, scaled=True), MBART, "arXiv 2001.08210, 2008.00401"),
    "plbart": Family(functools.partial(bart, vocab=50005, scaled=True), PLBART, "arXiv 2103.06333"),
}
