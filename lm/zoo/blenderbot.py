"""Blenderbot (Roller et al. 2020, arXiv 2004.13637): a Transformer with a short encoder that norms before each
sub-layer, with learned positions. The small one norms after them, and embeddings too: the decoder before it adds
positions."""

import functools

from lm.model.positions import Learned
from lm.zoo.bart import variant
from lm.zoo.family import Family

SIZES = {
    "400m": {"layers": 2, "decoder_layers": 12, "d_model": 1280, "heads": 32},
    "2.7b": {"layers": 2, "decoder_layers": 24, "d_model": 2560, "heads": 32},
}
SMALL = {"90m": {"layers": 8, "d_model": 512, "heads": 16}}

FAMILIES = {
    "blenderbot": Family(
        functools.partial(variant, vocab=8008, position=Learned(128), norm_first=True, scaled=True),
        SIZES,
        "arXiv 2004.13637",
    ),
    "blenderbot_small": Family(
        functools.partial(variant, vocab=54944, position=Learned(512), embed_norm=True, token_norm=True, scaled=True),
        SMALL,
        "arXiv 2004.13637",
    ),
}
