"""Grok-1 (xAI 2024, github.com/xai-org/grok-1): RMS norms before and after each sub-layer, grouped queries whose scores
are capped, GeGLU experts of which a token takes two of eight, and one table of tokens, scaled on the way in and out.

The weights of the chosen experts are their probabilities among all eight and do not add up to one. The table's sizes
make 315.7 billion parameters, where 314 are stated."""

import math

from lm.core.param import Normal
from lm.model.attention import Attention, Projections, Softmax
from lm.model.heads import LMHead
from lm.model.layers import RMSNorm
from lm.model.mlp import GatedMLP
from lm.model.moe.dispatch import Dropless
from lm.model.moe.layer import MoE
from lm.model.moe.top_k import TopK
from lm.model.residual import Sandwich
from lm.model.rotary import Rotary, Scaling
from lm.model.transformer import LanguageModel
from lm.zoo.family import Family, Sizes
from lm.zoo.parts import check_choices, decoder, head_size, sequential

SIZES: Sizes = {"314b": {"layers": 64, "d_model": 6144, "heads": 48, "kv_heads": 8, "d_ff": 32768}}


def grok(
    *,
    layers: int,
    d_model: int,
    heads: int,
    d_ff: int,
    experts: int = 8,
    k: int = 2,
    kv_heads: int | None = None,
    vocab: int = 131072,
    activation: str = "gelu_tanh",
    theta: float = 10000.0,
    scaling: Scaling | None = None,
    embed_scale: float | None = None,
    score_scale: float | None = None,
    cap: float = 30.0,
    output_scale: float = 3**-0.5,
    eps: float = 1e-5,
    tied: bool = True,
) -> LanguageModel:
    """A Grok-1 of any shape: `k` of `experts` for each token, each as wide as `d_ff`. `embed_scale` defaults to
    sqrt(d_model), `score_scale` to 1 / sqrt(head_dim); with `cap` 0 scores are not capped."""
    check_choices(k, experts)
    init, norm = Normal(0.02), RMSNorm(eps)
    attention = Attention(
        heads=heads,
        head_dim=head_size(d_model, heads),
        kv_heads=kv_heads,
        rotary=Rotary(theta=theta, scaling=scaling),
        softmax=Softmax(score_scale, cap=cap or None),
        projections=Projections(init=init, out_init=init),
    )
    moe = MoE(experts, GatedMLP(d_ff, activation, init=init, out_init=init), TopK(k, init=init), Dropless())
    return decoder(
        [sequential(attention, moe, Sandwich(norm, norm))] * layers,
        d_model=d_model,
        vocab=vocab,
        norm=norm,
        tied=tied,
        embed_scale=math.sqrt(d_model) if embed_scale is None else embed_scale,
        head=LMHead(vocab, scale=output_scale, init=init),
        init=init,
    )


FAMILIES = {"grok": Family(grok, SIZES, "xAI 2024, github.com/xai-org/grok-1")}
