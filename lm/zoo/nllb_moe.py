"""NLLB-MoE (NLLB team 2022, arXiv 2207.04672, section 6.3): NLLB's Transformer, in which each fourth feed-forward layer
has experts. A token goes to two, whose weights, those of a softmax, add up to one. While it trains, the outputs of
experts are masked at random, a fifth of them (expert output masking); what comes after is used to as much less, so that
without masking they are multiplied by four fifths. Here they always are."""

from lm.adapt.surgery.copies import CopyExperts
from lm.core.errors import UserError
from lm.core.param import Normal
from lm.model.moe.dispatch import Dropless
from lm.model.moe.top_k import TopK
from lm.model.positions import Sinusoidal
from lm.model.transformer import Model
from lm.zoo.family import Family, Sizes
from lm.zoo.m2m import m2m

SIZES: Sizes = {"54b": {"layers": 24, "d_model": 2048, "heads": 16, "d_ff": 8192}}


def nllb_moe(
    *,
    layers: int,
    d_model: int,
    heads: int,
    d_ff: int | None = None,
    decoder_layers: int | None = None,
    decoder_heads: int | None = None,
    decoder_d_ff: int | None = None,
    experts: int = 128,
    every: int = 4,
    decoder_every: int | None = None,
    masked: float = 0.2,
    router_bias: bool = False,
    vocab: int = 256206,
    position: Sinusoidal = Sinusoidal(layout="fairseq", offset=2),
    activation: str = "relu",
    scaled: bool = True,
    shared: bool = True,
    tied: bool = True,
    dropout: float = 0.0,
) -> Model:
    """An NLLB-MoE of any shape: of each `every` layers the last has `experts`, in the decoder of each `decoder_every`.
    `masked`: the share of experts' outputs that was masked in training. `router_bias`: the router's logits have one.
    The other knobs are those of `lm.zoo.transformer.transformer`."""
    if experts < 2:
        raise UserError(f"model.experts={experts} must be at least 2: a token goes to two")
    model = m2m(
        layers=layers,
        d_model=d_model,
        heads=heads,
        d_ff=d_ff,
        decoder_layers=decoder_layers,
        decoder_heads=decoder_heads,
        decoder_d_ff=decoder_d_ff,
        vocab=vocab,
        position=position,
        activation=activation,
        scaled=scaled,
        shared=shared,
        tied=tied,
        dropout=dropout,
    )
    router = TopK(2, normalize=1.0, scale=1 - masked, bias=router_bias, init=Normal(0.02))
    towers = (("encoder", layers, every), ("decoder", decoder_layers or layers, decoder_every or every))
    for tower, depth, period in towers:
        if sparse := tuple(range(period - 1, depth, period)):
            model = CopyExperts(experts, sparse, router=router, dispatch=Dropless(), tower=tower).model(model)
    return model


FAMILIES = {"nllb_moe": Family(nllb_moe, SIZES, "arXiv 2207.04672")}
