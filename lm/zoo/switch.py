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
from lm.model.moe.routers import SoftmaxRouter
from lm.model.residual import PreNorm
from lm.model.rotary import Rotary
from lm.model.transformer import EncoderDecoder, LanguageModel
from lm.zoo.family import Family, Sizes
from lm.zoo.parts import decoder, head_size
from lm.zoo.t5 import FIVE, t5
from lm.zoo.t5 import SIZES as T5

SIZES: Sizes = {
    "base-128": {**T5["base"], "experts": 128},
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
    capacity: float = 1.25,
    activation: str = "relu",
    gated: bool = False,
    init_scale: float = 0.1,
    eps: float = 1e-6,
    dropout: float = 0.0,
    tied: bool = True,
) -> EncoderDecoder:
    """A Switch Transformer of any shape; see `lm.zoo.t5.t5` for what the other knobs mean. Of each `every` layers the
    last is sparse, in both towers; an expert takes up to `capacity` times its even share of tokens. `init_scale`
    multiplies the variance of initial weights."""
    if min(layers, decoder_layers or layers) < every:
        raise UserError(f"model.every={every} leaves a tower of {layers} layers without experts: lower it")
    knobs: dict[str, Any] = {"d_model": d_model, "heads": heads, "d_ff": d_ff, "head_dim": head_dim, "vocab": vocab}
    knobs |= {"activation": activation, "gated": gated, "eps": eps, "dropout": dropout, "tied": tied}
    model = t5(layers=layers, decoder_layers=decoder_layers, **knobs)
    router, dispatch = SoftmaxRouter(k=1, init=FanIn()), Capacity(capacity)
    for tower, depth in (("encoder", layers), ("decoder", decoder_layers or layers)):
        sparse = tuple(range(every - 1, depth, every))
        model = CopyExperts(experts, sparse, router=router, dispatch=dispatch, tower=tower).model(model)
    assert isinstance(model, EncoderDecoder)

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
    routed = Block((("attention", attention), ("moe", MoE(experts, expert, SoftmaxRouter(k=1)))), PreNorm(norm))
    blocks = [routed if i % 2 else dense for i in range(layers)]
    return decoder(blocks, d_model=d_model, vocab=vocab, norm=norm, tied=True)


FAMILIES = {
    "switch": Family(switch, SIZES, "arXiv 2101.03961"),
    "switch_decoder": Family(switch_decoder, {}, "arXiv 2101.03961"),
}
