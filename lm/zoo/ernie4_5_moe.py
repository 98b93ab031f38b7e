"""ERNIE 4.5's mixtures (Baidu ERNIE team 2025): the dense model's layers, of which all but the first few have narrow
experts, in the small one beside two that all tokens take. Their weights are a softmax's, divided by their sum; which
are chosen a balance bias helps to say."""

import dataclasses

from lm.core.param import Normal
from lm.model.heads import LMHead
from lm.model.mlp import GatedMLP
from lm.model.rotary import Scaling
from lm.model.transformer import LanguageModel
from lm.zoo.ernie4_5 import ernie4_5
from lm.zoo.family import Family, Sizes
from lm.zoo.parts import fine_experts, with_experts

SIZES: Sizes = {
    "21b-a3b": {
        "layers": 28, "d_model": 2560, "heads": 20, "kv_heads": 4, "d_ff": 12288, "experts": 64, "k": 6,
        "expert_ff": 1536, "shared": 2, "first_dense": 1,
    },
    "300b-a47b": {
        "layers": 54, "d_model": 8192, "heads": 64, "kv_heads": 8, "d_ff": 28672, "experts": 64, "k": 8,
        "expert_ff": 3584, "first_dense": 3, "tied": False,
    },
}  # fmt: skip


def ernie4_5_moe(
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
    last: int | None = None,
    every: int = 1,
    rate: float | None = 1e-3,
    kv_heads: int | None = None,
    head_dim: int | None = None,
    vocab: int = 103424,
    activation: str = "silu",
    theta: float = 500000.0,
    scaling: Scaling | None = None,
    bias: bool = False,
    eps: float = 1e-5,
    tied: bool = True,
) -> LanguageModel:
    """An ERNIE 4.5 with experts, of any shape. From layer `first_dense` (from 0) to `last` (None: the last one)
    each whose number, from 1, is a multiple of `every` has `experts` experts of width `expert_ff`, of which a token
    takes `k`, and `shared` more that all tokens take. `bias`: all linear maps have one, the head's too, but neither
    router nor experts."""
    init = Normal(0.02)
    model = ernie4_5(
        layers=layers,
        d_model=d_model,
        heads=heads,
        d_ff=d_ff,
        kv_heads=kv_heads,
        head_dim=head_dim,
        vocab=vocab,
        activation=activation,
        theta=theta,
        scaling=scaling,
        bias=bias,
        eps=eps,
        tied=tied,
    )
    expert = GatedMLP(expert_ff, activation, init=init, out_init=init)
    moe = fine_experts(experts, expert, k, shared, shared_bias=bias, score="softmax", rate=rate)
    end = layers if last is None else last + 1
    sparse = [i for i in range(first_dense, min(end, layers)) if (i + 1) % every == 0]
    return dataclasses.replace(with_experts(model, moe, sparse), head=LMHead(vocab, bias=bias, init=init))


FAMILIES = {"ernie4_5_moe": Family(ernie4_5_moe, SIZES, "Baidu 2025")}
