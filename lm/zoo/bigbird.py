"""BigBird (Zaheer et al. 2020, arXiv 2007.14062): BERT whose tokens see blocks beside their own, the first and the last
block of the text, and some at random. For a text of few blocks that is all of it."""

from lm.core.param import Normal
from lm.model.attention import Attention, Projections
from lm.model.layers import LayerNorm
from lm.model.masks import Bidirectional
from lm.model.mlp import MLP
from lm.model.positions import Learned
from lm.model.residual import PostNorm
from lm.model.special.block_sparse import EdgeBlocks
from lm.model.stack import Stack
from lm.model.transformer import LanguageModel
from lm.zoo import bert
from lm.zoo.family import Family, Sizes
from lm.zoo.parts import head_size, sequential

SIZES: Sizes = {"roberta-base": bert.BASE, "roberta-large": bert.LARGE}


def bigbird(
    *,
    layers: int,
    d_model: int,
    heads: int,
    d_ff: int | None = None,
    vocab: int = 50358,
    context: int = 4096,
    types: int = 2,
    sparse: bool = True,
    block: int = 64,
    random_blocks: int = 3,
    bias: bool = True,
    scaled: bool = False,
    activation: str = "gelu_tanh",
    eps: float = 1e-12,
    dropout: float = 0.0,
    pretraining: tuple[str, ...] = ("mlm",),
    tied: bool = True,
) -> LanguageModel:
    """A BigBird of any shape; `sparse` is its attention in blocks of `block` tokens. With `bias` queries, keys and
    values have one; `scaled` multiplies tokens' embeddings by sqrt(d_model). `pretraining`: see `lm.zoo.bert.bert`."""
    init, norm = Normal(0.02), LayerNorm(eps)
    attention = Attention(
        heads=heads,
        head_dim=head_size(d_model, heads),
        mask=Bidirectional(),
        bias=(EdgeBlocks(block, random_blocks, (5 + 2 * random_blocks) * block),) if sparse else (),
        projections=Projections(("q", "k", "v", "o") if bias else ("o",), init=init, out_init=init),
        dropout=dropout,
    )
    mlp = MLP(d_ff or 4 * d_model, activation, init=init, out_init=init)
    one = sequential(attention, mlp, PostNorm(norm, dropout=dropout))
    return bert.encoder(
        Stack.of([one] * layers),
        d_model=d_model,
        vocab=vocab,
        position=Learned(context, init=init),
        types=types,
        embed_norm=norm,
        embed_scale=d_model**0.5 if scaled else 1.0,
        norm=norm,
        activation=activation,
        pretraining=pretraining,
        dropout=dropout,
        tied=tied,
    )


FAMILIES = {"bigbird": Family(bigbird, SIZES, "arXiv 2007.14062")}
