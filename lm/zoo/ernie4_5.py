"""ERNIE 4.5 (Baidu ERNIE team 2025), the dense one: LLaMA's layers with grouped queries, interleaved rotary positions,
heads wider than d / heads, a tied head."""

from lm.core.param import Normal
from lm.model.attention import Attention, Projections
from lm.model.layers import RMSNorm
from lm.model.mlp import GatedMLP
from lm.model.rotary import Rotary, Scaling
from lm.model.transformer import LanguageModel
from lm.zoo.family import Family
from lm.zoo.parts import decoder, head_size, pre_norm

SIZES = {"0.3b": {"layers": 18, "d_model": 1024, "heads": 16, "kv_heads": 2, "head_dim": 128, "d_ff": 3072}}


def ernie4_5(
    *,
    layers: int,
    d_model: int,
    heads: int,
    d_ff: int,
    kv_heads: int | None = None,
    head_dim: int | None = None,
    vocab: int = 103424,
    activation: str = "silu",
    theta: float = 500000.0,
    scaling: Scaling | None = None,
    bias: bool = False,
    eps: float = 1e-5,
    tied: bool = True,
) -> LanguageModel:
    """A dense ERNIE 4.5 of any shape."""
    init = Normal(0.02)
    attention = Attention(
        heads=heads,
        head_dim=head_dim or head_size(d_model, heads),
        kv_heads=kv_heads,
        rotary=Rotary(theta=theta, interleaved=True, scaling=scaling),
        projections=Projections(("q", "k", "v", "o") if bias else (), init=init, out_init=init),
    )
    mlp = GatedMLP(d_ff, activation, bias=bias, init=init, out_init=init)
    block = pre_norm(attention, mlp, RMSNorm(eps))
    return decoder([block] * layers, d_model=d_model, vocab=vocab, norm=RMSNorm(eps), tied=tied, init=init)


FAMILIES = {"ernie4_5": Family(ernie4_5, SIZES, "Baidu 2025")}
