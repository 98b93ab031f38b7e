"""Command R, R+ and Aya (Cohere 2024; Aya 23: arXiv 2405.15032; Aya Expanse: 2412.04261): attention and SwiGLU side by
side behind one LayerNorm without bias, interleaved rotary positions, a tied head with scaled logits; R+ has norms of
queries and keys. Command R7B and A (2504.00698): three layers with a window and rotary positions to one that sees
everything and has no positions; as has Tiny Aya."""

import functools
from typing import Any

from lm.core.param import Normal
from lm.model.attention import Attention, Projections, QKNorm
from lm.model.block import Block
from lm.model.heads import LMHead
from lm.model.layers import LayerNorm
from lm.model.masks import Causal, Window
from lm.model.mlp import GatedMLP
from lm.model.rotary import Rotary, Scaling
from lm.model.transformer import LanguageModel
from lm.zoo.family import Family, Sizes
from lm.zoo.parts import LOCAL, decoder, head_size, layers_of, parallel

_8B: dict[str, Any] = {"layers": 32, "d_model": 4096, "heads": 32, "kv_heads": 8, "d_ff": 14336}
_35B: dict[str, Any] = {"layers": 40, "d_model": 8192, "heads": 64, "d_ff": 22528, "theta": 8000000.0}
_32B = {**_35B, "kv_heads": 8, "d_ff": 24576, "theta": 4000000.0}
_104B = {"layers": 64, "d_model": 12288, "heads": 96, "kv_heads": 8, "d_ff": 33792, "qk_norm": True}
SIZES: Sizes = {
    "command-r": _35B,
    "command-r-08-2024": _32B,
    "command-r-plus": {**_104B, "theta": 75000000.0, "logit_scale": 5 / 6},
    "aya-8b": _8B,
    "aya-expanse-32b": _32B,
}
SIZES_2: Sizes = {
    "command-r7b": _8B,
    "command-a": {"layers": 64, "d_model": 12288, "heads": 96, "kv_heads": 8, "d_ff": 36864},
    "tiny-aya": {
        "layers": 36,
        "d_model": 2048,
        "heads": 16,
        "kv_heads": 4,
        "d_ff": 11008,
        "vocab": 262144,
        "logit_scale": 1.0,
    },
}


def cohere(
    *,
    layers: int,
    d_model: int,
    heads: int,
    d_ff: int,
    kv_heads: int | None = None,
    head_dim: int | None = None,
    vocab: int = 256000,
    layer_types: tuple[str, ...] = (),
    pattern: int = 1,
    window: int = 4096,
    everywhere: bool = True,
    activation: str = "silu",
    theta: float = 10000.0,
    scaling: Scaling | None = None,
    qk_norm: bool = False,
    attention_bias: bool = False,
    logit_scale: float = 0.0625,
    eps: float = 1e-5,
    tied: bool = True,
) -> LanguageModel:
    """A Command R of any shape. Of `pattern` layers all but the last have a window, unless `layer_types` says
    otherwise; those without have rotary positions only if these are `everywhere`."""
    init, norm = Normal(0.02), LayerNorm(eps, bias=False)
    mlp = GatedMLP(d_ff, activation, init=init, out_init=init)

    def block(kind: str) -> Block:
        attention = Attention(
            heads=heads,
            head_dim=head_dim or head_size(d_model, heads),
            kv_heads=kv_heads,
            mask=Window(window) if kind == LOCAL else Causal(),
            rotary=Rotary(theta=theta, interleaved=True, scaling=scaling) if everywhere or kind == LOCAL else None,
            projections=Projections(("q", "k", "v", "o") if attention_bias else (), init=init, out_init=init),
            qk_norm=QKNorm(norm, norm, over="each") if qk_norm else None,
        )
        return parallel(attention, mlp, norm)

    return decoder(
        [block(kind) for kind in layers_of(layer_types, layers, pattern)],
        d_model=d_model,
        vocab=vocab,
        norm=norm,
        tied=tied,
        head=LMHead(vocab, scale=logit_scale, init=init),
        init=init,
    )


cohere2 = functools.partial(cohere, pattern=4, everywhere=False, theta=50000.0, logit_scale=0.25)
FAMILIES = {
    "cohere": Family(cohere, SIZES, "Cohere 2024, arXiv 2405.15032, 2412.04261"),
    "cohere2": Family(cohere2, SIZES_2, "Cohere 2024, arXiv 2504.00698"),
}
