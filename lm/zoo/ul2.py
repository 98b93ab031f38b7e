"""UL2 (Tay et al. 2022, arXiv 2205.05131): T5 1.1 with SwiGLU, trained by a mixture of denoisers; and the paper's other
architecture, one tower that reads its inputs from both sides as a prefix and writes on from there."""

import functools

from lm.core.param import FanIn, Normal
from lm.model.attention_bias import BiasTable, BucketedBias
from lm.model.embed import Embed
from lm.model.heads import LMHead
from lm.model.layers import RMSNorm
from lm.model.masks import Prefix
from lm.model.mlp import GatedMLP
from lm.model.stack import Stack
from lm.model.transformer import LanguageModel, Transformer
from lm.zoo.family import Family
from lm.zoo.parts import language_model, pre_norm
from lm.zoo.t5 import attention_of, t5_1_1

SIZES = {"20b": {"layers": 32, "d_model": 4096, "heads": 16, "head_dim": 256, "d_ff": 16384}}


def ul2_decoder(
    *,
    layers: int,
    d_model: int,
    heads: int,
    d_ff: int,
    head_dim: int = 64,
    vocab: int = 32128,
    activation: str = "silu",
    buckets: int = 32,
    max_distance: int = 128,
    eps: float = 1e-6,
    dropout: float = 0.0,
    tied: bool = False,
) -> LanguageModel:
    """A prefix decoder of any shape, of T5's layers; the bias tells distances to either side apart."""
    init, norm = Normal(d_model**-0.5), RMSNorm(eps)
    bias = BucketedBias("relative_bias", buckets, max_distance, bidirectional=True, init=init)
    attention = attention_of(heads, head_dim, dropout)(mask=Prefix(), bias=(bias,))
    mlp = GatedMLP(d_ff, activation, dropout=dropout, init=FanIn(), out_init=FanIn())
    tables = (("relative_bias", BiasTable(buckets, heads, init=init)),)
    stack = Stack.of([pre_norm(attention, mlp, norm, dropout)] * layers, norm=norm, tables=tables)
    head = LMHead(vocab, scale=d_model**-0.5 if tied else 1.0, init=init)
    return language_model(Transformer(d_model, Embed(vocab, dropout=dropout, init=Normal(1.0)), stack), head, tied)


FAMILIES = {
    "ul2": Family(functools.partial(t5_1_1, activation="silu"), SIZES, "arXiv 2205.05131"),
    "ul2_decoder": Family(ul2_decoder, {}, "arXiv 2205.05131"),
}
