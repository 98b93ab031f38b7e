"""LaMDA (Thoppilan et al. 2022, arXiv 2201.08239): a decoder with T5's relative attention and a gated-GELU feed-forward
layer, whose heads together are wider than the model.

The paper has the shapes of three sizes, and d_ff of the largest only (8 d_model, taken for the others too). It does not
say how layers are normed, nor whether the head is tied: T5's RMSNorm without biases in front of each sub-layer, and a
tied head, which fit the total, are assumed."""

from lm.core.param import Normal
from lm.model.attention import Attention, Projections
from lm.model.attention_bias import BiasTable, BucketedBias
from lm.model.embed import Embed
from lm.model.heads import LMHead
from lm.model.layers import RMSNorm
from lm.model.mlp import GatedMLP
from lm.model.stack import Stack
from lm.model.transformer import LanguageModel, Transformer
from lm.zoo.family import Family
from lm.zoo.parts import language_model, pre_norm

SIZES = {
    "2b": {"layers": 10, "d_model": 2560, "heads": 40},
    "8b": {"layers": 16, "d_model": 4096, "heads": 64},
    "137b": {"layers": 64, "d_model": 8192, "heads": 128},
}


def lamda(
    *,
    layers: int,
    d_model: int,
    heads: int,
    head_dim: int = 128,
    d_ff: int | None = None,
    vocab: int = 32000,
    buckets: int = 32,
    max_distance: int = 128,
    activation: str = "gelu_tanh",
    eps: float = 1e-6,
    dropout: float = 0.0,
    tied: bool = True,
) -> LanguageModel:
    """A LaMDA of any shape; d_ff defaults to 8 d_model. `buckets`, `max_distance`: of the relative bias, see T5."""
    init, out_init = Normal(0.02), Normal(0.02, depth=2 * layers)
    attention = Attention(
        heads=heads,
        head_dim=head_dim,
        bias=(BucketedBias(buckets=buckets, max_distance=max_distance),),
        dropout=dropout,
        projections=Projections(init=init, out_init=out_init),
    )
    mlp = GatedMLP(d_ff or 8 * d_model, activation, init=init, out_init=out_init)
    block = pre_norm(attention, mlp, RMSNorm(eps), dropout)
    tables = (("relative_bias", BiasTable(buckets, heads, init=init)),)
    return language_model(
        Transformer(
            d_model,
            Embed(vocab, dropout=dropout, init=init),
            Stack.of([block] * layers, norm=RMSNorm(eps), tables=tables),
        ),
        LMHead(vocab, init=init),
        tied,
    )


FAMILIES = {"lamda": Family(lamda, SIZES, "arXiv 2201.08239")}
