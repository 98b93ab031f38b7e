"""dots.llm1 (rednote-hilab 2025, arXiv 2506.05767): Qwen 3's layers, with DeepSeek-V3's experts behind the first."""

from lm.core.param import Normal
from lm.model.mlp import GatedMLP
from lm.model.rotary import Scaling
from lm.model.transformer import LanguageModel
from lm.zoo.family import Family, Sizes
from lm.zoo.parts import fine_experts, with_experts
from lm.zoo.qwen import qwen

SIZES: Sizes = {
    "142b": {
        "layers": 62, "d_model": 4096, "heads": 32, "d_ff": 10944, "experts": 128, "k": 6, "expert_ff": 1408,
        "shared": 2, "first_dense": 1, "normalize": True, "scale": 2.5, "theta": 10000000.0, "eps": 1e-5,
    }
}  # fmt: skip


def dots1(
    *,
    layers: int,
    d_model: int,
    heads: int,
    d_ff: int,
    experts: int,
    k: int,
    expert_ff: int,
    shared: int = 0,
    first_dense: int = 0,
    groups: int = 1,
    kept_groups: int = 1,
    normalize: bool = False,
    scale: float = 1.0,
    rate: float | None = 1e-3,
    kv_heads: int | None = None,
    head_dim: int | None = None,
    vocab: int = 152064,
    biases: tuple[str, ...] = (),
    layer_types: tuple[str, ...] = (),
    window: int | None = None,
    activation: str = "silu",
    theta: float = 10000.0,
    scaling: Scaling | None = None,
    eps: float = 1e-6,
    tied: bool = False,
) -> LanguageModel:
    """A dots.llm1 of any shape. Layers from `first_dense` on have `experts` experts of width `expert_ff`, of which a
    token takes `k`, and `shared` more that all tokens take; for the rest see `fine_experts`, and `qwen`."""
    init = Normal(0.02)
    model = qwen(
        layers=layers,
        d_model=d_model,
        heads=heads,
        d_ff=d_ff,
        kv_heads=kv_heads,
        head_dim=head_dim,
        vocab=vocab,
        biases=biases,
        qk_norm=True,
        layer_types=layer_types,
        window=window,
        activation=activation,
        theta=theta,
        scaling=scaling,
        eps=eps,
        tied=tied,
    )
    expert = GatedMLP(expert_ff, activation, init=init, out_init=init)
    moe = fine_experts(
        experts, expert, k, shared, groups=groups, kept_groups=kept_groups, normalize=normalize, scale=scale, rate=rate
    )
    return with_experts(model, moe, range(first_dense, layers))


FAMILIES = {"dots1": Family(dots1, SIZES, "arXiv 2506.05767")}
