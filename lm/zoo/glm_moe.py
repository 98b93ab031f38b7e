"""GLM-4.5 and 4.5-Air (GLM-4.5 team 2025, arXiv 2508.06471): GLM-4's layers, of which the rotary positions are no more
interleaved and the large model's queries and keys normed, with DeepSeek-V3's experts behind the first few."""

from lm.core.param import Normal
from lm.model.mlp import GatedMLP
from lm.model.rotary import Scaling
from lm.model.transformer import LanguageModel
from lm.zoo.family import Family, Sizes
from lm.zoo.glm import glm4
from lm.zoo.parts import fine_experts, with_experts

_BOTH = {"heads": 96, "kv_heads": 8, "head_dim": 128, "k": 8, "shared": 1, "theta": 1000000.0}
SIZES: Sizes = {
    "air-106b": {
        "layers": 46, "d_model": 4096, "d_ff": 10944, "experts": 128, "expert_ff": 1408, "first_dense": 1, **_BOTH
    },
    "355b": {
        "layers": 92, "d_model": 5120, "d_ff": 12288, "experts": 160, "expert_ff": 1536, "first_dense": 3,
        "scale": 2.5, "qk_norm": True, **_BOTH,
    },
}  # fmt: skip


def glm_moe(
    *,
    layers: int,
    d_model: int,
    heads: int,
    d_ff: int,
    experts: int,
    k: int,
    expert_ff: int,
    shared: int = 1,
    first_dense: int = 0,
    groups: int = 1,
    kept_groups: int = 1,
    normalize: bool = True,
    scale: float = 1.0,
    rate: float | None = 1e-3,
    kv_heads: int | None = None,
    head_dim: int | None = None,
    vocab: int = 151552,
    activation: str = "silu",
    theta: float = 10000.0,
    fraction: float = 0.5,
    scaling: Scaling | None = None,
    qkv_bias: bool = True,
    qk_norm: bool = False,
    eps: float = 1e-5,
    tied: bool = False,
) -> LanguageModel:
    """A GLM-4.5 of any shape. Layers from `first_dense` on have `experts` experts of width `expert_ff`, of which a
    token takes `k`, and `shared` more that all tokens take; for the rest see `fine_experts`."""
    init = Normal(0.02)
    model = glm4(
        layers=layers,
        d_model=d_model,
        heads=heads,
        d_ff=d_ff,
        kv_heads=kv_heads,
        head_dim=head_dim,
        vocab=vocab,
        activation=activation,
        theta=theta,
        fraction=fraction,
        interleaved=False,
        scaling=scaling,
        qkv_bias=qkv_bias,
        qk_norm=qk_norm,
        eps=eps,
        tied=tied,
    )
    expert = GatedMLP(expert_ff, activation, init=init, out_init=init)
    moe = fine_experts(
        experts, expert, k, shared, groups=groups, kept_groups=kept_groups, normalize=normalize, scale=scale, rate=rate
    )
    return with_experts(model, moe, range(first_dense, layers))


FAMILIES = {"glm4_moe": Family(glm_moe, SIZES, "arXiv 2508.06471")}
