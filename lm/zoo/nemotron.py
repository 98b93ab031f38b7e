"""Nemotron-4 (Parmar et al. 2024, arXiv 2402.16819; 340B: 2406.11704): grouped queries, rotary positions on half of
each head, squared ReLU, LayerNorm with gains 1 + w, untied head."""

from lm.core.param import Normal
from lm.model.attention import Attention, Projections
from lm.model.layers import LayerNorm
from lm.model.mlp import MLP
from lm.model.rotary import Rotary, Scaling
from lm.model.transformer import LanguageModel
from lm.zoo.family import Family
from lm.zoo.parts import decoder, head_size, pre_norm

SIZES = {
    "15b": {"layers": 32, "d_model": 6144, "heads": 48, "kv_heads": 8, "d_ff": 24576},
    "340b": {"layers": 96, "d_model": 18432, "heads": 96, "kv_heads": 8, "d_ff": 73728},
}


def nemotron(
    *,
    layers: int,
    d_model: int,
    heads: int,
    d_ff: int,
    kv_heads: int | None = None,
    head_dim: int | None = None,
    vocab: int = 256000,
    activation: str = "relu2",
    theta: float = 10000.0,
    fraction: float = 0.5,
    scaling: Scaling | None = None,
    attention_bias: bool = False,
    mlp_bias: bool = False,
    eps: float = 1e-5,
    tied: bool = False,
) -> LanguageModel:
    """A Nemotron-4 of any shape."""
    init, norm = Normal(0.0134), LayerNorm(eps, gain="1+w")
    attention = Attention(
        heads=heads,
        head_dim=head_dim or head_size(d_model, heads),
        kv_heads=kv_heads,
        rotary=Rotary(theta=theta, fraction=fraction, scaling=scaling),
        projections=Projections(("q", "k", "v", "o") if attention_bias else (), init=init, out_init=init),
    )
    block = pre_norm(attention, MLP(d_ff, activation, bias=mlp_bias, init=init, out_init=init), norm)
    return decoder([block] * layers, d_model=d_model, vocab=vocab, norm=norm, tied=tied, init=init)


FAMILIES = {"nemotron": Family(nemotron, SIZES, "arXiv 2402.16819, 2406.11704")}
