"""Persimmon-8B (Elsen et al. 2023, Adept): pre-LayerNorm decoder with biases, rotary positions on half of each head,
LayerNorms of queries and keys, squared ReLU and an untied head."""

from lm.core.param import Normal
from lm.model.attention import Attention, Projections, QKNorm
from lm.model.layers import LayerNorm
from lm.model.mlp import MLP
from lm.model.rotary import Rotary, Scaling
from lm.model.transformer import LanguageModel
from lm.zoo.family import Family
from lm.zoo.parts import decoder, head_size, pre_norm

SIZES = {"8b": {"layers": 36, "d_model": 4096, "heads": 64, "d_ff": 16384, "theta": 25000.0}}


def persimmon(
    *,
    layers: int,
    d_model: int,
    heads: int,
    d_ff: int,
    vocab: int = 262144,
    activation: str = "relu2",
    theta: float = 10000.0,
    fraction: float = 0.5,
    scaling: Scaling | None = None,
    qk_norm: bool = True,
    eps: float = 1e-5,
    tied: bool = False,
) -> LanguageModel:
    """A Persimmon of any shape."""
    init, norm = Normal(0.02), LayerNorm(eps)
    attention = Attention(
        heads=heads,
        head_dim=head_size(d_model, heads),
        rotary=Rotary(theta=theta, fraction=fraction, scaling=scaling),
        projections=Projections(("q", "k", "v", "o"), init=init, out_init=init),
        qk_norm=QKNorm(norm, norm) if qk_norm else None,
    )
    block = pre_norm(attention, MLP(d_ff, activation, init=init, out_init=init), norm)
    return decoder([block] * layers, d_model=d_model, vocab=vocab, norm=norm, tied=tied, init=init)


FAMILIES = {"persimmon": Family(persimmon, SIZES, "Adept 2023")}
