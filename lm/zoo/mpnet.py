"""MPNet (Song et al. 2020, arXiv 2004.09297): BERT with positions of two kinds, a learned table that begins behind the
padding's row and T5's biases by distance, from one table for all layers; no types. It is trained on masked and permuted
text at once."""

from lm.core.param import Normal
from lm.model.attention_bias import BiasTable, BucketedBias
from lm.model.layers import LayerNorm
from lm.model.positions import Learned
from lm.model.stack import Stack
from lm.model.transformer import LanguageModel
from lm.zoo.bert import BASE, encoder, layer
from lm.zoo.family import Family

OFFSET = 2  # of the first position: the padding's row is 1


def mpnet(
    *,
    layers: int,
    d_model: int,
    heads: int,
    d_ff: int | None = None,
    vocab: int = 30527,
    context: int = 512,
    buckets: int = 32,
    activation: str = "gelu",
    eps: float = 1e-5,
    dropout: float = 0.0,
    tied: bool = True,
) -> LanguageModel:
    """An MPNet of any shape. d_ff defaults to 4 d_model; distances from 128 on share the last of `buckets`."""
    init, norm = Normal(0.02), LayerNorm(eps)
    distance = BucketedBias(buckets=buckets, bidirectional=True)
    block = layer(d_model, heads, d_ff, activation, norm, dropout=dropout, bias=(distance,))
    return encoder(
        Stack.of([block] * layers, tables=(("relative_bias", BiasTable(buckets, heads, init=init)),)),
        d_model=d_model,
        vocab=vocab,
        position=Learned(context + OFFSET, OFFSET, init),
        types=0,
        embed_norm=norm,
        norm=norm,
        activation="gelu",
        pretraining=("mlm",),
        dropout=dropout,
        tied=tied,
    )


FAMILIES = {"mpnet": Family(mpnet, {"base": BASE}, "arXiv 2004.09297")}
