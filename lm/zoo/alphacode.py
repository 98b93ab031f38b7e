"""AlphaCode (Li et al. 2022, arXiv 2203.07814): a Transformer with a shallow encoder, a deep decoder, and few heads of
keys and values.

The paper gives layers, widths and heads. Widths of the MLP are unpublished: 6 d_model is what fits all five totals. So
are positions, norms and biases: sinusoids, pre-LayerNorm and none in attention stand in for them."""

import functools

from lm.model.layers import LayerNorm
from lm.zoo.family import Family
from lm.zoo.transformer import transformer

SIZES = {
    "300m": {"layers": 4, "decoder_layers": 24, "d_model": 768, "heads": 6, "kv": 1, "d_ff": 4608},
    "1b": {"layers": 5, "decoder_layers": 30, "d_model": 1408, "heads": 11, "kv": 1, "d_ff": 8448},
    "3b": {"layers": 6, "decoder_layers": 36, "d_model": 2048, "heads": 16, "kv": 1, "d_ff": 12288},
    "9b": {"layers": 8, "decoder_layers": 48, "d_model": 3072, "heads": 24, "kv": 4, "d_ff": 18432},
    "41b": {"layers": 8, "decoder_layers": 56, "d_model": 6144, "heads": 48, "kv": 16, "d_ff": 36864},
}

FAMILIES = {
    "alphacode": Family(
        functools.partial(
            transformer,
            vocab=8000,
            activation="gelu",
            norm=LayerNorm(1e-5),
            norm_first=True,
            mlp_bias=False,
            shared=False,
        ),
        SIZES,
        "arXiv 2203.07814",
    )
}
