"""BERT (Devlin et al. 2019, arXiv 1810.04805) and what was trained in its shape: whole-word masking (Cui et al. 2019,
1906.08101), SpanBERT (Joshi et al. 2020, 1907.10529), MacBERT (Cui et al. 2020, 2004.13922), TinyBERT (Jiao et al.
2020, 1909.10351), small ones (Turc et al. 2019, 1908.08962).

Post-LayerNorm encoder: token, position and type tables, their sum normed; biases everywhere, exact GELU. It is trained
to fill in masked tokens, by a head with a transform before the tied table, and to tell whether two texts follow each
other, by the pooled state of the first token. `lm.zoo` has its relatives, which build on `bert`, in files of their own.
"""

import functools
from typing import Any

from lm.core.errors import UserError, nearest
from lm.core.param import Initializer, Normal
from lm.model.attention import Attention, Projections
from lm.model.block import Block
from lm.model.embed import Embed, RowTable
from lm.model.heads import Head, Heads, LMHead, SequenceClassifier, TokenClassifier, TransformHead
from lm.model.layers import LayerNorm
from lm.model.masks import Bidirectional, MaskKind
from lm.model.mlp import MLP
from lm.model.positions import Learned
from lm.model.residual import PostNorm, PreNorm
from lm.model.special.spans import SpanBoundary
from lm.model.stack import Stack
from lm.model.transformer import LanguageModel, Transformer
from lm.zoo.family import Family, Sizes
from lm.zoo.parts import head_size, sequential

BASE = {"layers": 12, "d_model": 768, "heads": 12}
LARGE = {"layers": 24, "d_model": 1024, "heads": 16}
CASED, CHINESE = 28996, 21128  # vocabularies
SIZES: Sizes = {
    "base": BASE,
    "large": LARGE,
    "base-cased": {**BASE, "vocab": CASED},
    "large-cased": {**LARGE, "vocab": CASED},
    "base-chinese": {**BASE, "vocab": CHINESE},
    "base-multilingual-cased": {**BASE, "vocab": 119547},
    "tiny": {"layers": 2, "d_model": 128, "heads": 2},
    "mini": {"layers": 4, "d_model": 256, "heads": 4},
    "small": {"layers": 4, "d_model": 512, "heads": 8},
    "medium": {"layers": 8, "d_model": 512, "heads": 8},
}
TINYBERT = {"4": {"layers": 4, "d_model": 312, "heads": 12, "d_ff": 1200}, "6": {**BASE, "layers": 6}}


def bert(
    *,
    layers: int,
    d_model: int,
    heads: int,
    d_ff: int | None = None,
    vocab: int = 30522,
    context: int = 512,
    offset: int = 0,
    types: int = 2,
    tasks: int = 0,
    embed_width: int | None = None,
    activation: str = "gelu",
    head_activation: str | None = None,
    eps: float = 1e-12,
    norm_first: bool = False,
    embed_norm: bool = True,
    mask: MaskKind = Bidirectional(),
    dropout: float = 0.0,
    pretraining: tuple[str, ...] = ("mlm",),
    tied: bool = True,
) -> LanguageModel:
    """A BERT of any shape; `SIZES` has the published ones. d_ff defaults to 4 d_model, head_activation to activation.

    `pretraining` are the heads, on one token table: "mlm" (masked tokens), "lm" (tokens, by the table alone), "nsp"
    (whether a text follows another), "sop" (whether they are in order), "distance" (whether they are neighbours, apart,
    or of two documents), "reordering" (in which order one to three segments stand), "dialogue" (whether it is real),
    "sbo" (tokens of a span from those beside it), "rtd" (replaced tokens); several give a dict of scores by these
    names. There are `types` of tokens and `tasks`; positions begin at row `offset` of their table. With `norm_first`
    sub-layers are pre-normed, and the last states normed."""
    norm = LayerNorm(eps)
    block = layer(d_model, heads, d_ff, activation, norm, norm_first=norm_first, mask=mask, dropout=dropout)
    return encoder(
        Stack.of([block] * layers, norm=norm if norm_first else None),
        d_model=d_model,
        vocab=vocab,
        position=Learned(context + offset, offset, Normal(0.02)),
        types=types,
        tasks=tasks,
        embed_width=None if embed_width in (None, d_model) else embed_width,
        embed_norm=norm if embed_norm else None,
        norm=norm,
        activation=head_activation or activation,
        dropout=dropout,
        pretraining=pretraining,
        tied=tied,
    )


def layer(
    d_model: int,
    heads: int,
    d_ff: int | None,
    activation: str,
    norm: LayerNorm,
    *,
    norm_first: bool = False,
    mask: MaskKind = Bidirectional(),
    dropout: float = 0.0,
    init: Initializer = Normal(0.02),
    **knobs: Any,
) -> Block:
    """Attention and MLP with biases, normed before or after. `knobs`: further ones of the attention."""
    attention = Attention(
        heads=heads,
        head_dim=head_size(d_model, heads),
        mask=mask,
        projections=Projections(("q", "k", "v", "o"), init=init, out_init=init),
        dropout=dropout,
        **knobs,
    )
    mlp = MLP(d_ff or 4 * d_model, activation, init=init, out_init=init)
    residual = PreNorm(norm, dropout) if norm_first else PostNorm(norm, dropout=dropout)
    return sequential(attention, mlp, residual)


def encoder(
    stack: Stack,
    *,
    d_model: int,
    vocab: int,
    position: Learned | None,
    types: int,
    embed_norm: LayerNorm | None,
    embed_scale: float = 1.0,
    norm: LayerNorm,
    activation: str,
    pretraining: tuple[str, ...],
    tasks: int = 0,
    embed_width: int | None = None,
    dropout: float = 0.0,
    tied: bool = True,
    init: Initializer = Normal(0.02),
) -> LanguageModel:
    """An encoder around its layers, with heads for `pretraining` (see `bert`) whose norm and activation are given."""
    embed = Embed(
        vocab,
        position,
        extra=tuple(RowTable(name, n, init) for name, n in (("types", types), ("tasks", tasks)) if n),
        norm=embed_norm,
        scale=embed_scale,
        width=embed_width,
        project_bias=embed_width is not None,
        dropout=dropout,
        init=init,
    )
    lm = LMHead(vocab, bias=True, init=init)
    classes = {n: SequenceClassifier(n, activation="tanh", init=init) for n in (2, 3, 9)}
    known: dict[str, Head] = {
        "mlm": TransformHead(lm, norm, activation, embed_width, init=init),
        "lm": lm,
        "nsp": classes[2],
        "sop": classes[2],
        "dialogue": classes[2],
        "distance": classes[3],
        "reordering": classes[9],
        "sbo": SpanBoundary(lm, norm, activation, width=embed_width, init=init),
        "rtd": TokenClassifier(1, activation, init=init),
    }
    for name in pretraining:
        if name not in known:
            raise UserError(f"model.pretraining has the head {name!r}{nearest(name, known)}")
    if not pretraining or len(set(pretraining)) < len(pretraining):
        raise UserError(f"model.pretraining={list(pretraining)} must name each head once, and at least one")
    parts = tuple((name, known[name]) for name in pretraining)
    paths = ("head",) if len(parts) == 1 else tuple(f"head/{name}" for name in pretraining)
    shares = {LMHead: "w", TransformHead: "lm/w", SpanBoundary: "lm/w"}
    tables = [f"{at}/{shares[type(h)]}" for at, (_, h) in zip(paths, parts, strict=True) if type(h) in shares]
    return LanguageModel(
        Transformer(d_model, embed, stack),
        parts[0][1] if len(parts) == 1 else Heads(parts),
        ties=tuple((path, "body/embed/token") for path in tables) if tied else (),
    )


FAMILIES = {
    "bert": Family(bert, SIZES, "arXiv 1810.04805, 1908.08962"),
    "bert_wwm": Family(functools.partial(bert, vocab=CHINESE), {"base": BASE, "ext-base": BASE}, "arXiv 1906.08101"),
    "spanbert": Family(functools.partial(bert, vocab=CASED), {"base": BASE, "large": LARGE}, "arXiv 1907.10529"),
    "macbert": Family(functools.partial(bert, vocab=CHINESE), {"base": BASE, "large": LARGE}, "arXiv 2004.13922"),
    "bert_generation": Family(
        functools.partial(bert, vocab=50358, types=0, pretraining=("lm",)), {"large": LARGE}, "arXiv 1907.12461"
    ),
    "tinybert": Family(bert, TINYBERT, "arXiv 1909.10351"),
}
