"""Hunyuan-A13B (Tencent Hunyuan team 2025): experts beside a shared one of the same width in every layer, grouped
queries, norms of queries and keys after their rotation, and a larger rotary base for long texts (`NTKScaling`)."""

from lm.core.param import Normal
from lm.model.attention import Attention, Projections, QKNorm
from lm.model.layers import RMSNorm
from lm.model.mlp import GatedMLP
from lm.model.rotary import NTKScaling, Rotary, Scaling
from lm.model.transformer import LanguageModel
from lm.zoo.family import Family, Sizes
from lm.zoo.parts import decoder, fine_experts, head_size, pre_norm

SIZES: Sizes = {
    "a13b": {
        "layers": 32, "d_model": 4096, "heads": 32, "kv_heads": 8, "head_dim": 128, "d_ff": 3072, "experts": 64, "k": 8,
        "scaling": NTKScaling(1000.0), "tied": True,
    },
}  # fmt: skip


def hunyuan_moe(
    *,
    layers: int,
    d_model: int,
    heads: int,
    d_ff: int,
    experts: int,
    k: int,
    kv_heads: int | None = None,
    head_dim: int | None = None,
    vocab: int = 128167,
    activation: str = "silu",
    theta: float = 10000.0,
    scaling: Scaling | None = None,
    attention_bias: bool = False,
    eps: float = 1e-5,
    tied: bool = False,
) -> LanguageModel:
    """A Hunyuan with experts, of any shape: `k` of `experts` for each token and a shared one, all as wide as `d_ff`."""
    init, norm = Normal(0.02), RMSNorm(eps)
    attention = Attention(
        heads=heads,
        head_dim=head_dim or head_size(d_model, heads),
        kv_heads=kv_heads,
        rotary=Rotary(theta=theta, scaling=scaling),
        projections=Projections(("q", "k", "v", "o") if attention_bias else (), init=init, out_init=init),
        qk_norm=QKNorm(norm, norm, after_rotation=True),
    )
    expert = GatedMLP(d_ff, activation, init=init, out_init=init)
    moe = fine_experts(experts, expert, k, shared=1, score="softmax", rate=None)
    blocks = [pre_norm(attention, moe, norm)] * layers
    return decoder(blocks, d_model=d_model, vocab=vocab, norm=norm, tied=tied, init=init)


FAMILIES = {"hunyuan_moe": Family(hunyuan_moe, SIZES, "Tencent 2025")}
