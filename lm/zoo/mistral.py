"""Mistral 7B (Jiang et al. 2023, arXiv 2310.06825): LLaMA's layers with grouped queries and a sliding window."""

from lm.core.param import Normal
from lm.model.attention import Attention, Projections
from lm.model.layers import RMSNorm
from lm.model.masks import Causal, Window
from lm.model.mlp import GatedMLP
from lm.model.rotary import Rotary, Scaling
from lm.model.transformer import LanguageModel
from lm.zoo.family import Family, Sizes
from lm.zoo.parts import decoder, eight_thirds, head_size, pre_norm

_7B = {"layers": 32, "d_model": 4096, "heads": 32, "kv_heads": 8, "d_ff": 14336}
SIZES: Sizes = {
    "7b-v0.1": _7B,
    "7b-v0.2": {**_7B, "window": 0, "theta": 1000000.0},
    "7b-v0.3": {**_7B, "window": 0, "theta": 1000000.0, "vocab": 32768},
}


def mistral(
    *,
    layers: int,
    d_model: int,
    heads: int,
    kv_heads: int | None = None,
    head_dim: int | None = None,
    d_ff: int | None = None,
    vocab: int = 32000,
    window: int = 4096,
    activation: str = "silu",
    theta: float = 10000.0,
    scaling: Scaling | None = None,
    eps: float = 1e-5,
    tied: bool = False,
) -> LanguageModel:
    """A Mistral of any shape. With `window` 0 all layers see everything; d_ff defaults to 8/3 d_model."""
    init = Normal(0.02)
    attention = Attention(
        heads=heads,
        head_dim=head_dim or head_size(d_model, heads),
        kv_heads=kv_heads,
        mask=Window(window) if window else Causal(),
        rotary=Rotary(theta=theta, scaling=scaling),
        projections=Projections(init=init, out_init=init),
    )
    block = pre_norm(
        attention, GatedMLP(d_ff or eight_thirds(d_model), activation, init=init, out_init=init), RMSNorm(eps)
    )
    return decoder([block] * layers, d_model=d_model, vocab=vocab, norm=RMSNorm(eps), tied=tied, init=init)


FAMILIES = {"mistral": Family(mistral, SIZES, "arXiv 2310.06825")}
