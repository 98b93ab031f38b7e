"""Granite 3's mixtures (Granite team 2024, IBM): Granite's layers with many small experts, whose weights are a softmax
over the chosen logits; later ones also have an expert of all tokens."""

from lm.core.param import Normal
from lm.model.mlp import GatedMLP
from lm.model.moe.dispatch import Dropless
from lm.model.moe.layer import MoE
from lm.model.moe.top_k import TopK
from lm.model.rotary import Scaling
from lm.model.transformer import LanguageModel
from lm.zoo.family import Family, Sizes
from lm.zoo.granite import granite
from lm.zoo.parts import with_experts

_ALL = {"kv_heads": 8, "d_ff": 512, "k": 8}
SIZES: Sizes = {
    "3.0-1b-a400m": {"layers": 24, "d_model": 1024, "heads": 16, "experts": 32, **_ALL},
    "3.0-3b-a800m": {"layers": 32, "d_model": 1536, "heads": 24, "experts": 40, **_ALL},
}


def granite_moe(
    *,
    layers: int,
    d_model: int,
    heads: int,
    d_ff: int,
    experts: int,
    k: int,
    shared_ff: int = 0,
    kv_heads: int | None = None,
    head_dim: int | None = None,
    vocab: int = 49155,
    activation: str = "silu",
    theta: float = 10000.0,
    scaling: Scaling | None = None,
    embed_scale: float = 12.0,
    score_scale: float | None = None,
    residual_scale: float = 0.22,
    logit_divisor: float = 6.0,
    attention_bias: bool = False,
    eps: float = 1e-6,
    tied: bool = True,
) -> LanguageModel:
    """A Granite with experts, of any shape: `k` of `experts` for each token, each as wide as `d_ff`, and one of all
    tokens, `shared_ff` wide (0: none)."""
    init = Normal(0.02)
    model = granite(
        layers=layers,
        d_model=d_model,
        heads=heads,
        d_ff=d_ff,
        kv_heads=kv_heads,
        head_dim=head_dim,
        vocab=vocab,
        theta=theta,
        scaling=scaling,
        embed_scale=embed_scale,
        score_scale=score_scale,
        residual_scale=residual_scale,
        logit_divisor=logit_divisor,
        attention_bias=attention_bias,
        eps=eps,
        tied=tied,
    )
    moe = MoE(
        experts,
        GatedMLP(d_ff, activation, init=init, out_init=init),
        TopK(k, normalize=1.0, init=init),
        Dropless(),
        shared=GatedMLP(shared_ff, activation, init=init, out_init=init) if shared_ff else None,
    )
    return with_experts(model, moe, range(layers))


FAMILIES = {"granite_moe": Family(granite_moe, SIZES, "IBM 2024")}
