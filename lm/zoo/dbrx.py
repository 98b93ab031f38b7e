"""DBRX (Databricks 2024): each token goes to four of sixteen experts, whose weights are divided by their sum; grouped
queries, clipped queries, keys and values, and layer norms without biases."""

from lm.core.param import Normal
from lm.model.attention import Attention, Projections
from lm.model.layers import LayerNorm
from lm.model.mlp import GatedMLP
from lm.model.moe.dispatch import Dropless
from lm.model.moe.layer import MoE
from lm.model.moe.top_k import TopK
from lm.model.rotary import Rotary, Scaling
from lm.model.transformer import LanguageModel
from lm.zoo.family import Family, Sizes
from lm.zoo.parts import check_choices, decoder, head_size, pre_norm

SIZES: Sizes = {
    "132b": {
        "layers": 40, "d_model": 6144, "heads": 48, "kv_heads": 8, "d_ff": 10752, "experts": 16, "k": 4,
        "normalize": 1.0, "clip": 8.0, "theta": 500000.0,
    },
}  # fmt: skip


def dbrx(
    *,
    layers: int,
    d_model: int,
    heads: int,
    d_ff: int,
    experts: int,
    k: int,
    normalize: float | None = None,
    kv_heads: int | None = None,
    vocab: int = 100352,
    activation: str = "silu",
    theta: float = 10000.0,
    scaling: Scaling | None = None,
    clip: float | None = None,
) -> LanguageModel:
    """A DBRX of any shape: `k` of `experts` for each token, each as wide as `d_ff`, their weights divided by their
    p-norm, p being `normalize` (None: not divided). `clip` bounds queries, keys and values."""
    init, norm = Normal(0.02), LayerNorm(1e-5, bias=False)
    check_choices(k, experts)
    attention = Attention(
        heads=heads,
        head_dim=head_size(d_model, heads),
        kv_heads=kv_heads,
        rotary=Rotary(theta=theta, scaling=scaling),
        projections=Projections(clip=clip, init=init, out_init=init),
    )
    expert = GatedMLP(d_ff, activation, init=init, out_init=init)
    moe = MoE(experts, expert, TopK(k, normalize=normalize, init=init), Dropless())
    blocks = [pre_norm(attention, moe, norm)] * layers
    return decoder(blocks, d_model=d_model, vocab=vocab, norm=norm, tied=False, init=init)


FAMILIES = {"dbrx": Family(dbrx, SIZES, "Databricks 2024")}
