"""XLNet (Yang et al. 2019, arXiv 1906.08237): a post-LayerNorm encoder with Transformer-XL's relative positions and
memory, and a term for pairs of tokens of one segment (row `types`). It learns to predict tokens in any order: the row
`order` tells which tokens a token may see, and asks for some that are not there (see `lm.model.masks.Permuted`), by
which both of the paper's streams are one batch: S tokens, then a query for each that is to be predicted, at its
position.

Without that row it is a bidirectional encoder or, `causal`, a decoder. For text that is read backwards (bi_data) give
positions that run down. transformers' generation, which asks a query stream and recomputes the last tokens, is not
what cached decoding computes here."""

from lm.core.param import Normal
from lm.model.attention import Attention, Projections
from lm.model.attention_bias import RelativeBias
from lm.model.embed import Embed
from lm.model.heads import LMHead
from lm.model.kv_sources import SegmentMemory, SelfKV
from lm.model.layers import LayerNorm
from lm.model.masks import Permuted
from lm.model.mlp import MLP
from lm.model.residual import PostNorm
from lm.model.special.same_type import SameType
from lm.model.stack import Stack
from lm.model.transformer import LanguageModel, Transformer
from lm.zoo.family import Family
from lm.zoo.parts import head_size, language_model, sequential

SIZES = {
    "base": {"layers": 12, "d_model": 768, "heads": 12, "d_ff": 3072},
    "large": {"layers": 24, "d_model": 1024, "heads": 16, "d_ff": 4096},
}


def xlnet(
    *,
    layers: int,
    d_model: int,
    heads: int,
    d_ff: int,
    head_dim: int | None = None,
    vocab: int = 32000,
    activation: str = "gelu",
    causal: bool = False,
    memory: int | None = None,
    reuse: int | None = None,
    clamp: int | None = None,
    eps: float = 1e-12,
    dropout: float = 0.0,
    tied: bool = True,
) -> LanguageModel:
    """An XLNet of any shape; head_dim defaults to d_model / heads. `memory`: tokens kept from earlier calls, of each
    the first `reuse` (all); with queries in a batch set `reuse`, so that they are not remembered. Distances count up to
    `clamp`."""
    init = Normal(0.02)
    attention = Attention(
        heads=heads,
        head_dim=head_dim or head_size(d_model, heads),
        mask=Permuted(causal),
        bias=(RelativeBias(clamp=clamp, init=init), SameType(init)),
        source=SegmentMemory(memory, reuse) if memory else SelfKV(),
        dropout=dropout,
        projections=Projections(init=init, out_init=init),
    )
    mlp = MLP(d_ff, activation, dropout=dropout, init=init, out_init=init)
    block = sequential(attention, mlp, PostNorm(LayerNorm(eps), dropout=dropout))
    return language_model(
        Transformer(d_model, Embed(vocab, blank=True, dropout=dropout, init=init), Stack.of([block] * layers)),
        LMHead(vocab, bias=True, init=init),
        tied,
    )


FAMILIES = {"xlnet": Family(xlnet, SIZES, "arXiv 1906.08237")}
