"""Switch Transformers (Fedus et al. 2021, arXiv 2101.03961): T5, in which each second feed-forward layer (of Switch-C
every one) is a choice of one among many. Initial weights have a tenth of T5's variance.

The paper's own shapes of Base and Large have gated feed-forward layers of 2048 and 2816; the released ones, which
`SIZES` has, are T5 1.0's with ReLU. XXL is T5 1.1's with 128 experts, which its 395 billion parameters need, where the
table prints 64."""

import dataclasses
from typing import Any

from lm.adapt.surgery.copies import CopyExperts
from lm.core.component import with_knobs
from lm.core.errors import UserError
from lm.core.param import FanIn, Normal
from lm.model.attention import Attention, Projections
from lm.model.block import Block
from lm.model.layers import RMSNorm
from lm.model.mlp import MLP
from lm.model.moe.dispatch import Capacity
from lm.model.moe.layer import MoE
from lm.model.moe.top_k import TopK
from lm.model.residual import PreNorm
from lm.model.rotary import Rotary
from lm.model.transformer import LanguageModel, Model
from lm.zoo.family import Family, Sizes
from lm.zoo.parts import decoder, head_size
from lm.zoo.t5 import FIVE, t5
from lm.zoo.t5 import SIZES as T5

SIZES: Sizes = {
    **{f"base-{n}": {**T5["base"], "experts": n} for n in (8, 16, 32, 64, 128, 256)},
    "large-128": {**T5["large"], "experts": 128},
    "xxl": {**FIVE["xxl"], "experts": 128, "activation": "gelu_tanh", "gated": True, "tied": False},
    "c": {"layers": 15, "d_model": 2080, "heads": 32, "d_ff": 6144, "experts": 2048, "every": 1, "tied": False},
}


def switch(
    *,
    layers: int,
    d_model: int,
    heads: int,
    d_ff: int,
    experts: int,
    decoder_layers: int | None = None,
    head_dim: int = 64,
    vocab: int = 32128,
    every: int = 2,
    decoder_every: int | None = None,
    capacity: float = 1.25,
    slots: int | None = None,
    router_bias: bool = False,
    jitter: float = 0.01,
    activation: str = "relu",
    gated: bool = False,
    buckets: int = 32,
    max_distance: int = 128,
    init_scale: float = 0.1,
    eps: float = 1e-6,
    dropout: float = 0.0,
    tied: bool = True,
    shared: bool = True,
    encoder_only: bool = False,
) -> Model:
    """A Switch Transformer of any shape; see `lm.zoo.t5.t5` for what the other knobs mean.

    Of each `every` layers the second is sparse (1: all are), in the decoder of each `decoder_every`. An expert takes up
    to `capacity` times its even share of a row's tokens, or `slots` of them, if given. `router_bias`: the router's
    logits have one. In training `jitter` is the noise of its input. `init_scale` multiplies the variance of initial
    weights. If not `shared`, encoder and decoder have tables of tokens of their own."""
    knobs: dict[str, Any] = {"d_model": d_model, "heads": heads, "d_ff": d_ff, "head_dim": head_dim, "vocab": vocab}
    knobs |= {"activation": activation, "gated": gated, "eps": eps, "dropout": dropout, "tied": tied}
    knobs |= {"buckets": buckets, "max_distance": max_distance, "encoder_only": encoder_only}
    model = t5(layers=layers, decoder_layers=decoder_layers, **knobs)
    router = TopK(k=1, bias=router_bias, jitter=jitter, init=FanIn())
    towers = [("" if encoder_only else "encoder", layers, every)]
    towers += [] if encoder_only else [("decoder", decoder_layers or layers, decoder_every or every)]
    for tower, depth, period in towers:
        sparse = tuple(range(1 % period, depth, period))
        if not sparse:
            raise UserError(f"model.every={period} leaves a tower of {depth} layers without experts: lower it")
        spread = CopyExperts(experts, sparse, router=router, dispatch=Capacity(capacity, slots=slots), tower=tower)
        model = spread.model(model)

    if not shared and not encoder_only:
        model = dataclasses.replace(model, ties=tuple(tie for tie in model.ties if tie[0] != "encoder/embed/token"))

    def smaller(name: str, value: Any) -> Any:
        return dataclasses.replace(value, scale=value.scale * init_scale) if isinstance(value, FanIn) else value

    return with_knobs(model, smaller)


def switch_decoder(
    *, layers: int, d_model: int, heads: int, d_ff: int, experts: int = 4, vocab: int = 32128
) -> LanguageModel:
    """A decoder in which dense and routed layers take turns, with rotary positions: of no published size."""
    small, norm = Normal(0.02, depth=2 * layers), RMSNorm()
    attention = Attention(heads, head_size(d_model, heads), rotary=Rotary(), projections=Projections(out_init=small))
    expert = MLP(d_ff, activation="relu", bias=False, out_init=small)
    dense = Block((("attention", attention), ("mlp", expert)), PreNorm(norm))
    routed = Block((("attention", attention), ("moe", MoE(experts, expert, TopK(k=1)))), PreNorm(norm))
    blocks = [routed if i % 2 else dense for i in range(layers)]
    return decoder(blocks, d_model=d_model, vocab=vocab, norm=norm, tied=True)


FAMILIES = {
    "switch": Family(switch, SIZES, "arXiv 2101.03961"),
    "switch_decoder": Family(switch_decoder, {}, "arXiv 2101.03961"),
}
