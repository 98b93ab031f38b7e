"""Phi-3 (Abdin et al. 2024, arXiv 2404.14219) and Phi-4 (2412.08905): LLaMA's layers, fused in their files, with
LongRoPE in the long variants."""

from lm.core.param import Normal
from lm.model.attention import Attention, Projections
from lm.model.layers import RMSNorm
from lm.model.masks import Causal, Window
from lm.model.mlp import GatedMLP
from lm.model.rotary import Rotary, Scaling
from lm.model.transformer import LanguageModel
from lm.zoo.family import Family, Sizes
from lm.zoo.parts import decoder, head_size, pre_norm

SIZES: Sizes = {
    "mini": {"layers": 32, "d_model": 3072, "heads": 32, "d_ff": 8192, "window": 2047},
    "medium": {"layers": 40, "d_model": 5120, "heads": 40, "kv_heads": 10, "d_ff": 17920, "window": 2047},
    "phi-4": {
        "layers": 40,
        "d_model": 5120,
        "heads": 40,
        "kv_heads": 10,
        "d_ff": 17920,
        "vocab": 100352,
        "theta": 250000.0,
    },
}


def phi3(
    *,
    layers: int,
    d_model: int,
    heads: int,
    d_ff: int,
    kv_heads: int | None = None,
    head_dim: int | None = None,
    vocab: int = 32064,
    window: int | None = None,
    activation: str = "silu",
    theta: float = 10000.0,
    fraction: float = 1.0,
    scaling: Scaling | None = None,
    eps: float = 1e-5,
    tied: bool = False,
) -> LanguageModel:
    """A Phi-3 of any shape. With `window` all layers see the last so many tokens only."""
    init, norm = Normal(0.02), RMSNorm(eps)
    attention = Attention(
        heads=heads,
        head_dim=head_dim or head_size(d_model, heads),
        kv_heads=kv_heads,
        mask=Window(window) if window else Causal(),
        rotary=Rotary(theta=theta, fraction=fraction, scaling=scaling),
        projections=Projections(init=init, out_init=init),
    )
    block = pre_norm(attention, GatedMLP(d_ff, activation, init=init, out_init=init), norm)
    return decoder([block] * layers, d_model=d_model, vocab=vocab, norm=norm, tied=tied, init=init)


FAMILIES = {"phi3": Family(phi3, SIZES, "arXiv 2404.14219, 2412.08905")}
