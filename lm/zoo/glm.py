"""ChatGLM 2 and 3 and GLM-4 (GLM team 2024, arXiv 2406.12793): LLaMA's layers with grouped queries, interleaved rotary
positions on half of each head and biases of queries, keys and values; GLM-4-0414 norms on both sides of each sub-layer.
"""

import functools

from lm.core.param import Normal
from lm.model.attention import Attention, Projections, QKNorm
from lm.model.layers import RMSNorm
from lm.model.mlp import GatedMLP
from lm.model.residual import PreNorm, Sandwich
from lm.model.rotary import Rotary, Scaling
from lm.model.transformer import LanguageModel
from lm.zoo.family import Family
from lm.zoo.parts import decoder, head_size, sequential

SIZES = {"9b": {"layers": 40, "d_model": 4096, "heads": 32, "kv_heads": 2, "d_ff": 13696}}
SIZES_CHAT = {"6b": {"layers": 28, "d_model": 4096, "heads": 32, "kv_heads": 2, "d_ff": 13696}}
SIZES_0414 = {
    "9b": {"layers": 40, "d_model": 4096, "heads": 32, "kv_heads": 2, "d_ff": 13696, "eps": 1e-5},
    "32b": {
        "layers": 61,
        "d_model": 6144,
        "heads": 48,
        "kv_heads": 8,
        "head_dim": 128,
        "d_ff": 23040,
        "eps": 1e-5,
        "qkv_bias": False,
    },
}


def glm4(
    *,
    layers: int,
    d_model: int,
    heads: int,
    d_ff: int,
    kv_heads: int | None = None,
    head_dim: int | None = None,
    vocab: int = 151552,
    activation: str = "silu",
    theta: float = 10000.0,
    fraction: float = 0.5,
    interleaved: bool = True,
    scaling: Scaling | None = None,
    qkv_bias: bool = True,
    qk_norm: bool = False,
    sandwich: bool = False,
    eps: float = 1.5625e-07,
    tied: bool = False,
) -> LanguageModel:
    """A GLM-4 of any shape."""
    init, norm = Normal(0.02), RMSNorm(eps)
    attention = Attention(
        heads=heads,
        head_dim=head_dim or head_size(d_model, heads),
        kv_heads=kv_heads,
        rotary=Rotary(theta=theta, fraction=fraction, interleaved=interleaved, scaling=scaling),
        qk_norm=QKNorm(norm, norm) if qk_norm else None,
        projections=Projections(("q", "k", "v") if qkv_bias else (), init=init, out_init=init),
    )
    mlp = GatedMLP(d_ff, activation, init=init, out_init=init)
    residual = Sandwich(norm, norm) if sandwich else PreNorm(norm)
    block = sequential(attention, mlp, residual)
    return decoder([block] * layers, d_model=d_model, vocab=vocab, norm=norm, tied=tied, init=init)


chatglm2 = functools.partial(glm4, vocab=65024, eps=1e-5)
FAMILIES = {
    "chatglm2": Family(chatglm2, SIZES_CHAT, "arXiv 2406.12793"),
    "chatglm3": Family(chatglm2, SIZES_CHAT, "arXiv 2406.12793"),
    "glm4": Family(glm4, SIZES, "arXiv 2406.12793"),
    "glm4-0414": Family(functools.partial(glm4, sandwich=True), SIZES_0414, "arXiv 2406.12793"),
}
