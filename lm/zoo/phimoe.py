"""Phi-3.5-MoE (Abdin et al. 2024, arXiv 2404.14219; GRIN, Liu et al. 2024, 2409.12136): sixteen experts in each layer,
of which SparseMixer chooses two, one after the other; layer norms, and biases of attention and head.

A LongRoPE scaling has divisors for texts up to its original length and for longer ones, of which transformers 5 takes
the former at every length, while the magnitude changes; so does this."""

import dataclasses

from lm.core.param import Normal
from lm.model.attention import Attention, Projections
from lm.model.heads import LMHead
from lm.model.layers import LayerNorm
from lm.model.masks import Causal, Window
from lm.model.mlp import GatedMLP
from lm.model.moe.dispatch import Dropless
from lm.model.moe.layer import MoE
from lm.model.moe.sparse_mixer import SparseMixer
from lm.model.rotary import LongScaling, Rotary, Scaling
from lm.model.transformer import LanguageModel
from lm.zoo.family import Family, Sizes
from lm.zoo.parts import check_choices, decoder, head_size, pre_norm

SIZES: Sizes = {
    "3.5-16x3.8b": {
        "layers": 32, "d_model": 4096, "heads": 32, "kv_heads": 8, "d_ff": 6400, "attention_bias": True,
        "head_bias": True,
    },
}  # fmt: skip


def phimoe(
    *,
    layers: int,
    d_model: int,
    heads: int,
    d_ff: int,
    experts: int = 16,
    slack: float = 0.01,
    kv_heads: int | None = None,
    head_dim: int | None = None,
    vocab: int = 32064,
    window: int = 0,
    activation: str = "silu",
    theta: float = 10000.0,
    scaling: Scaling | None = None,
    attention_bias: bool = False,
    head_bias: bool = False,
    eps: float = 1e-5,
    tied: bool = False,
) -> LanguageModel:
    """A PhiMoE of any shape: two of `experts` for each token, each as wide as `d_ff`; an expert counts in the other's
    weight where its logit is near (`slack`). With `window` 0 all layers see everything."""
    init, norm = Normal(0.02), LayerNorm(eps)
    check_choices(SparseMixer.k, experts)
    if isinstance(scaling, LongScaling):
        scaling = dataclasses.replace(scaling, long=scaling.short)
    attention = Attention(
        heads=heads,
        head_dim=head_dim or head_size(d_model, heads),
        kv_heads=kv_heads,
        mask=Window(window) if window else Causal(),
        rotary=Rotary(theta=theta, scaling=scaling),
        projections=Projections(("q", "k", "v", "o") if attention_bias else (), init=init, out_init=init),
    )
    expert = GatedMLP(d_ff, activation, init=init, out_init=init)
    moe = MoE(experts, expert, SparseMixer(slack, init=init), Dropless())
    blocks = [pre_norm(attention, moe, norm)] * layers
    head = LMHead(vocab, bias=head_bias, init=init)
    return decoder(blocks, d_model=d_model, vocab=vocab, norm=norm, tied=tied, head=head, init=init)


FAMILIES = {"phimoe": Family(phimoe, SIZES, "arXiv 2404.14219, 2409.12136")}
