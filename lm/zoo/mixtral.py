"""Mixtral 8x7B and 8x22B (Jiang et al. 2024, arXiv 2401.04088): Mistral's layers, in which each token goes to two of
eight experts; their weights are a softmax over the two logits. No token is dropped."""

from lm.core.param import Normal
from lm.model.mlp import GatedMLP
from lm.model.moe.dispatch import Dropless
from lm.model.moe.layer import MoE
from lm.model.moe.top_k import TopK
from lm.model.rotary import Scaling
from lm.model.transformer import LanguageModel
from lm.zoo.family import Family, Sizes
from lm.zoo.mistral import mistral
from lm.zoo.parts import with_experts

_22B = {"layers": 56, "d_model": 6144, "heads": 48, "kv_heads": 8, "d_ff": 16384}
SIZES: Sizes = {
    "8x7b": {"layers": 32, "d_model": 4096, "heads": 32, "kv_heads": 8, "d_ff": 14336},
    "8x22b-v0.1": _22B,
    "8x22b-v0.3": {**_22B, "vocab": 32768},
}


def mixtral(
    *,
    layers: int,
    d_model: int,
    heads: int,
    d_ff: int,
    experts: int = 8,
    k: int = 2,
    kv_heads: int | None = None,
    head_dim: int | None = None,
    vocab: int = 32000,
    window: int = 0,
    activation: str = "silu",
    theta: float = 1000000.0,
    scaling: Scaling | None = None,
    eps: float = 1e-5,
    tied: bool = False,
) -> LanguageModel:
    """A Mixtral of any shape: `k` of `experts` for each token, each as wide as `d_ff`. With `window` 0 all layers see
    everything."""
    init = Normal(0.02)
    model = mistral(
        layers=layers,
        d_model=d_model,
        heads=heads,
        kv_heads=kv_heads,
        head_dim=head_dim,
        d_ff=d_ff,
        vocab=vocab,
        window=window,
        theta=theta,
        scaling=scaling,
        eps=eps,
        tied=tied,
    )
    expert = GatedMLP(d_ff, activation, init=init, out_init=init)
    moe = MoE(experts, expert, TopK(k, normalize=1.0, init=init), Dropless())
    return with_experts(model, moe, range(layers))


FAMILIES = {"mixtral": Family(mixtral, SIZES, "arXiv 2401.04088")}
