"""Phi-1, 1.5 and 2 (Gunasekar et al. 2023, arXiv 2306.11644; Li et al. 2023, 2309.05463): attention and MLP side by
side behind one LayerNorm, partial rotary positions, biases everywhere, also in the untied head."""

from lm.core.param import Normal
from lm.model.attention import Attention, Projections, QKNorm
from lm.model.heads import LMHead
from lm.model.layers import LayerNorm
from lm.model.mlp import MLP
from lm.model.rotary import Rotary, Scaling
from lm.model.transformer import LanguageModel
from lm.zoo.family import Family
from lm.zoo.parts import decoder, head_size, parallel

SIZES = {
    "1": {"layers": 24, "d_model": 2048, "heads": 32, "fraction": 0.5},
    "1.5": {"layers": 24, "d_model": 2048, "heads": 32, "fraction": 0.5},
    "2": {"layers": 32, "d_model": 2560, "heads": 32, "fraction": 0.4},
}


def phi(
    *,
    layers: int,
    d_model: int,
    heads: int,
    kv_heads: int | None = None,
    head_dim: int | None = None,
    d_ff: int | None = None,
    vocab: int = 51200,
    activation: str = "gelu_tanh",
    theta: float = 10000.0,
    fraction: float = 0.5,
    scaling: Scaling | None = None,
    qk_norm: bool = False,
    eps: float = 1e-5,
    tied: bool = False,
) -> LanguageModel:
    """A Phi of any shape. d_ff defaults to 4 d_model."""
    init, norm = Normal(0.02), LayerNorm(eps)
    attention = Attention(
        heads=heads,
        head_dim=head_dim or head_size(d_model, heads),
        kv_heads=kv_heads,
        rotary=Rotary(theta=theta, fraction=fraction, scaling=scaling),
        projections=Projections(("q", "k", "v", "o"), init=init, out_init=init),
        qk_norm=QKNorm(norm, norm) if qk_norm else None,
    )
    block = parallel(attention, MLP(d_ff or 4 * d_model, activation, init=init, out_init=init), norm)
    head = LMHead(vocab, bias=True, init=init)
    return decoder([block] * layers, d_model=d_model, vocab=vocab, norm=norm, tied=tied, head=head, init=init)


FAMILIES = {"phi": Family(phi, SIZES, "arXiv 2306.11644, 2309.05463")}
