"""CoLT5 (Ainslie et al. 2023, arXiv 2303.09752): LongT5 with conditional computation. In the encoder all tokens attend
within 127 tokens on both sides and take a narrow MLP; one in 16 take a wide MLP besides and attend, with more heads, to
one in 8. The decoder is T5 1.1's, but its cross-attention has one head of keys and values.

The paper's table of shapes gives the heavy MLP of the base size as 8096, for 8192. How positions enter is not said:
here both branches have T5's bias, each with a table of its own."""

import dataclasses

from lm.core.errors import UserError
from lm.core.param import FanIn, Normal
from lm.model.attention_bias import BiasTable, BucketedBias
from lm.model.kv_sources import CrossKV
from lm.model.layers import RMSNorm
from lm.model.masks import Bidirectional, Window
from lm.model.mlp import GatedMLP
from lm.model.special.conditional import ConditionalAttention, ConditionalMLP, SoftTopK
from lm.model.transformer import Model
from lm.zoo.family import Family, Sizes
from lm.zoo.t5 import FIVE, assembled, attention_of

SIZES: Sizes = {size: {**FIVE[size], "light_heads": light} for size, light in (("base", 4), ("large", 4), ("xl", 8))}


def colt5(
    *,
    layers: int,
    d_model: int,
    heads: int,
    light_heads: int,
    d_ff: int,
    decoder_layers: int | None = None,
    head_dim: int = 64,
    vocab: int = 32128,
    activation: str = "gelu_tanh",
    radius: int = 127,
    every_token: int = 16,
    every_key: int = 8,
    slack: float = 1.0,
    buckets: int = 32,
    max_distance: int = 128,
    eps: float = 1e-6,
    dropout: float = 0.0,
    encoder_only: bool = False,
) -> Model:
    """A CoLT5 of any shape; `SIZES` has the published ones. `heads` are the decoder's and those of both branches of the
    encoder together, `light_heads` the local ones; the encoder's MLPs are d_ff / 2 and 4 d_ff wide. One in
    `every_token` tokens takes the heavy branches, one in `every_key` is a key there; with `slack` that many times more
    (9/8 in the paper's training)."""
    if not 0 < light_heads < heads:
        raise UserError(f"model.light_heads={light_heads} must be at least 1 and less than model.heads={heads}")
    tables = {"light_bias": light_heads, "heavy_bias": heads - light_heads, "relative_bias": heads}
    light_bias, heavy_bias, causal_bias = (
        BucketedBias(name, buckets, max_distance, name != "relative_bias") for name in tables
    )
    light, heavy, whole = (attention_of(n, head_dim, dropout) for n in tables.values())
    router = SoftTopK(every_token, slack=slack, init=Normal(d_model**-0.5))
    attention = ConditionalAttention(
        light=light(mask=Window(radius + 1, radius + 1), bias=(light_bias,)),
        heavy=heavy(mask=Bidirectional(), bias=(heavy_bias,), source=CrossKV("routed")),
        queries=router,
        keys=dataclasses.replace(router, every=every_key),
    )
    light_mlp, heavy_mlp, mlp = (
        GatedMLP(width, activation, dropout=dropout, init=FanIn(), out_init=FanIn())
        for width in (d_ff // 2, 4 * d_ff, d_ff)
    )
    writes, cross = whole(bias=(causal_bias,)), whole(mask=Bidirectional(), source=CrossKV(), kv_heads=1)
    *reading, writing = ((name, BiasTable(buckets, n, init=Normal(d_model**-0.5))) for name, n in tables.items())
    return assembled(
        (("attention", attention), ("mlp", ConditionalMLP(light_mlp, heavy_mlp, router))),
        () if encoder_only else (("attention", writes), ("cross", cross), ("mlp", mlp)),
        depths=(layers, layers if decoder_layers is None else decoder_layers),
        tables=tuple(reading),
        decoder_tables=(writing,),
        d_model=d_model,
        vocab=vocab,
        norm=RMSNorm(eps),
        dropout=dropout,
        tied=False,
        scaled=False,
    )


FAMILIES = {"colt5": Family(colt5, SIZES, "arXiv 2303.09752")}
