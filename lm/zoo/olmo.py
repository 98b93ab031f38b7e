"""OLMo 1 (Groeneveld et al. 2024, arXiv 2402.00838): LLaMA's layers with norms without parameters and clipped
projections. OLMo 2 (2501.00656): RMS norms behind the sub-layers instead of before, and of all queries and keys at
once. OLMo 3 (2512.13961): three layers with a window to one that sees everything, whose rotary positions alone are
stretched."""

import functools
from typing import Any

from lm.core.param import Normal
from lm.model.attention import Attention, Projections, QKNorm
from lm.model.block import Block
from lm.model.layers import LayerNorm, RMSNorm
from lm.model.masks import Causal, Window
from lm.model.mlp import GatedMLP
from lm.model.residual import Sandwich
from lm.model.rotary import Rotary, Scaling, YarnScaling
from lm.model.transformer import LanguageModel
from lm.zoo.family import Family, Sizes
from lm.zoo.parts import LOCAL, decoder, head_size, layers_of, pre_norm, sequential

SIZES = {
    "1b": {"layers": 16, "d_model": 2048, "heads": 16, "d_ff": 8192, "tied": True},
    "7b": {"layers": 32, "d_model": 4096, "heads": 32, "d_ff": 11008},
}
_2 = {"vocab": 100352, "theta": 500000.0, "eps": 1e-6}
SIZES_2 = {
    "1b": {"layers": 16, "d_model": 2048, "heads": 16, "d_ff": 8192, **_2},
    "7b": {"layers": 32, "d_model": 4096, "heads": 32, "d_ff": 11008, **_2},
    "13b": {"layers": 40, "d_model": 5120, "heads": 40, "d_ff": 13824, **_2},
    "32b": {"layers": 64, "d_model": 5120, "heads": 40, "kv_heads": 8, "d_ff": 27648, **_2},
}
_3: dict[str, Any] = {
    "vocab": 100278,
    "eps": 1e-6,
    "scaling": YarnScaling(8.0, 8192, magnitude=1.2079441541679836),
}
SIZES_3: Sizes = {
    "7b": {"layers": 32, "d_model": 4096, "heads": 32, "d_ff": 11008, **_3},
    "32b": {"layers": 64, "d_model": 5120, "heads": 40, "kv_heads": 8, "d_ff": 27648, **_3},
}
BIASES = ("q", "k", "v", "o")


def olmo(
    *,
    layers: int,
    d_model: int,
    heads: int,
    d_ff: int,
    kv_heads: int | None = None,
    head_dim: int | None = None,
    vocab: int = 50304,
    activation: str = "silu",
    theta: float = 10000.0,
    scaling: Scaling | None = None,
    attention_bias: bool = False,
    clip: float | None = None,
    tied: bool = False,
) -> LanguageModel:
    """An OLMo of any shape; `clip` bounds queries, keys and values."""
    init, norm = Normal(0.02), LayerNorm(1e-5, bias=False, gain="none")
    attention = Attention(
        heads=heads,
        head_dim=head_dim or head_size(d_model, heads),
        kv_heads=kv_heads,
        rotary=Rotary(theta=theta, scaling=scaling),
        projections=Projections(BIASES if attention_bias else (), clip=clip, init=init, out_init=init),
    )
    block = pre_norm(attention, GatedMLP(d_ff, activation, init=init, out_init=init), norm)
    return decoder([block] * layers, d_model=d_model, vocab=vocab, norm=norm, tied=tied, init=init)


def olmo2(
    *,
    layers: int,
    d_model: int,
    heads: int,
    d_ff: int,
    kv_heads: int | None = None,
    head_dim: int | None = None,
    vocab: int = 50304,
    activation: str = "silu",
    theta: float = 10000.0,
    scaling: Scaling | None = None,
    layer_types: tuple[str, ...] = (),
    pattern: int = 1,
    window: int = 4096,
    local_theta: float | None = None,
    local_scaling: Scaling | None = None,
    attention_bias: bool = False,
    eps: float = 1e-5,
    tied: bool = False,
) -> LanguageModel:
    """An OLMo 2 or 3 of any shape. Of `pattern` layers all but the last have a window, unless `layer_types` says
    otherwise; they use `local_theta` and `local_scaling` if the first is given."""
    init, norm = Normal(0.02), RMSNorm(eps)
    mlp = GatedMLP(d_ff, activation, init=init, out_init=init)

    def block(kind: str) -> Block:
        rotary = Rotary(theta=theta, scaling=scaling)
        if kind == LOCAL and local_theta is not None:
            rotary = Rotary(theta=local_theta, scaling=local_scaling)
        attention = Attention(
            heads=heads,
            head_dim=head_dim or head_size(d_model, heads),
            kv_heads=kv_heads,
            mask=Window(window) if kind == LOCAL else Causal(),
            rotary=rotary,
            projections=Projections(BIASES if attention_bias else (), init=init, out_init=init),
            qk_norm=QKNorm(norm, norm, over="whole"),
        )
        return sequential(attention, mlp, Sandwich(None, norm))

    blocks = [block(kind) for kind in layers_of(layer_types, layers, pattern)]
    return decoder(blocks, d_model=d_model, vocab=vocab, norm=norm, tied=tied, init=init)


olmo3 = functools.partial(olmo2, pattern=4, theta=500000.0, local_theta=500000.0)
FAMILIES = {
    "olmo": Family(olmo, SIZES, "arXiv 2402.00838"),
    "olmo2": Family(olmo2, SIZES_2, "arXiv 2501.00656"),
    "olmo3": Family(olmo3, SIZES_3, "arXiv 2512.13961"),
}
