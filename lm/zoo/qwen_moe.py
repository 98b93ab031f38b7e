"""Qwen1.5-MoE (Qwen team 2024) and the mixtures of Qwen 2 (arXiv 2407.10671) and 3 (2505.09388): Qwen's layers with
many small experts, in the first two beside one for all tokens, whose output is multiplied by the sigmoid of a score.
Qwen 3 divides the weights of the chosen by their sum."""

import functools

from lm.core.errors import UserError
from lm.core.param import Normal
from lm.model.mlp import GatedMLP
from lm.model.moe.dispatch import Dropless
from lm.model.moe.layer import MoE
from lm.model.moe.top_k import TopK
from lm.model.rotary import Scaling
from lm.model.transformer import LanguageModel
from lm.zoo.family import Family, Sizes
from lm.zoo.parts import with_experts
from lm.zoo.qwen import qwen

_1, _2 = {"experts": 60, "k": 4, "shared_ff": 5632}, {"experts": 64, "k": 8, "shared_ff": 20480}
SIZES_2: Sizes = {
    "1.5-a2.7b": {"layers": 24, "d_model": 2048, "heads": 16, "d_ff": 5632, "expert_ff": 1408, **_1},
    "57b-a14b": {"layers": 28, "d_model": 3584, "heads": 28, "kv_heads": 4, "d_ff": 18944, "expert_ff": 2560, **_2},
}
_3 = {"kv_heads": 4, "head_dim": 128, "experts": 128, "k": 8}
SIZES_3: Sizes = {
    "30b-a3b": {"layers": 48, "d_model": 2048, "heads": 32, "d_ff": 6144, "expert_ff": 768, **_3},
    "235b-a22b": {"layers": 94, "d_model": 4096, "heads": 64, "d_ff": 12288, "expert_ff": 1536, **_3},
}


def qwen_moe(
    *,
    layers: int,
    d_model: int,
    heads: int,
    d_ff: int,
    expert_ff: int,
    experts: int,
    k: int,
    normalize: bool = False,
    shared_ff: int = 0,
    every: int = 1,
    dense: tuple[int, ...] = (),
    kv_heads: int | None = None,
    head_dim: int | None = None,
    vocab: int = 151936,
    biases: tuple[str, ...] = ("q", "k", "v"),
    qk_norm: bool = False,
    layer_types: tuple[str, ...] = (),
    window: int | None = None,
    activation: str = "silu",
    theta: float = 1000000.0,
    scaling: Scaling | None = None,
    eps: float = 1e-6,
    tied: bool = False,
) -> LanguageModel:
    """A Qwen with experts, of any shape. Of each `every` layers the last is sparse, but for those that `dense` names
    (from 0), whose MLPs are `d_ff` wide. Of `experts` of width `expert_ff` a token goes to `k`, their weights divided
    by their sum if `normalize`; the expert of all tokens is `shared_ff` wide, and there is none at 0."""
    if every < 1:
        raise UserError(f"model.every={every} must be at least 1")
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
        qk_norm=qk_norm,
        layer_types=layer_types,
        window=window,
        activation=activation,
        theta=theta,
        scaling=scaling,
        eps=eps,
        tied=tied,
    )
    moe = MoE(
        experts,
        GatedMLP(expert_ff, activation, init=init, out_init=init),
        TopK(k, normalize=1.0 if normalize else None, init=init),
        Dropless(),
        shared=GatedMLP(shared_ff, activation, init=init, out_init=init) if shared_ff else None,
        shared_gate=bool(shared_ff),
    )
    return with_experts(model, moe, [i for i in range(every - 1, layers, every) if i not in dense])


FAMILIES = {
    "qwen2_moe": Family(qwen_moe, SIZES_2, "arXiv 2407.10671"),
    "qwen3_moe": Family(
        functools.partial(qwen_moe, biases=(), qk_norm=True, normalize=True), SIZES_3, "arXiv 2505.09388"
    ),
}
