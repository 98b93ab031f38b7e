"""RoFormer (Su et al. 2021, arXiv 2104.09864): BERT with rotary positions in place of a table of them. The English
models rotate values as well as queries and keys; their tables are narrower than they are, as ELECTRA's."""

from lm.model.layers import LayerNorm
from lm.model.masks import Bidirectional, MaskKind
from lm.model.rotary import Rotary
from lm.model.stack import Stack
from lm.model.transformer import LanguageModel
from lm.zoo.bert import BASE, encoder, layer
from lm.zoo.family import Family, Sizes

_SMALL = {"layers": 6, "d_model": 384, "heads": 6}
_ENGLISH = {"layers": 12, "vocab": 30522, "embed_width": 128, "values": True}
CHARACTERS = 12000  # in the vocabulary
SIZES: Sizes = {
    "base": BASE,
    "small": _SMALL,
    "char-base": {**BASE, "vocab": CHARACTERS},
    "char-small": {**_SMALL, "vocab": CHARACTERS},
    "small-discriminator": {**_ENGLISH, "d_model": 256, "heads": 4},
    "small-generator": {**_ENGLISH, "d_model": 64, "heads": 1},
}


def roformer(
    *,
    layers: int,
    d_model: int,
    heads: int,
    d_ff: int | None = None,
    vocab: int = 50000,
    types: int = 2,
    embed_width: int | None = None,
    values: bool = False,
    activation: str = "gelu",
    eps: float = 1e-12,
    mask: MaskKind = Bidirectional(),
    dropout: float = 0.0,
    tied: bool = True,
) -> LanguageModel:
    """A RoFormer of any shape. d_ff defaults to 4 d_model, embed_width, that of the tables, to d_model; `values` are
    rotated or not."""
    norm, rotary = LayerNorm(eps), Rotary(interleaved=True, values=values)
    block = layer(d_model, heads, d_ff, activation, norm, mask=mask, dropout=dropout, rotary=rotary)
    return encoder(
        Stack.of([block] * layers),
        d_model=d_model,
        vocab=vocab,
        position=None,
        types=types,
        embed_width=None if embed_width in (None, d_model) else embed_width,
        embed_norm=norm,
        norm=norm,
        activation=activation,
        pretraining=("mlm",),
        dropout=dropout,
        tied=tied,
    )


FAMILIES = {"roformer": Family(roformer, SIZES, "arXiv 2104.09864")}
