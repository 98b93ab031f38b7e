"""AlexaTM 20B (Soltan et al. 2022, arXiv 2208.01448): a Transformer that norms before each sub-layer, with
learned positions, GELU, biases everywhere, and tables of its own for encoder, decoder and head.

The vocabulary is published as 150 thousand."""

import functools

from lm.model.layers import LayerNorm
from lm.model.positions import Learned
from lm.zoo.family import Family
from lm.zoo.transformer import transformer

SIZES = {"20b": {"layers": 46, "decoder_layers": 32, "d_model": 4096, "heads": 32}}

FAMILIES = {
    "alexatm": Family(
        functools.partial(
            transformer,
            vocab=150000,
            position=Learned(1024),
            activation="gelu",
            norm=LayerNorm(1e-5),
            norm_first=True,
            scaled=False,
            attention_bias=True,
            shared=False,
            tied=False,
        ),
        SIZES,
        "arXiv 2208.01448",
    )
}
