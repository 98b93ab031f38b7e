"""DeBERTa (He et al. 2021, arXiv 2006.03654), its second version (the same paper's 1.5B model) and its third (He et al.
2021, arXiv 2111.09543).

Post-LayerNorm encoders whose attention scores add, to what query and key hold, what each of them holds about their
distance; scores are divided by sqrt(head_dim (1 + terms)). The first version has no biases of keys. The second keeps
distances in buckets, uses the projections of keys and queries for distances too, norms the relative embeddings, and has
a convolution beside its first layer. The third is the second without it, trained to find replaced tokens. Absolute
positions are read by the mask decoder alone, which has the last layer ask twice, first by what the layer before gives
plus positions; later training drops it."""

import functools
from collections.abc import Callable

from lm.core.errors import UserError, nearest
from lm.core.param import Normal, Ties
from lm.model.attention import Attention, Projections, Softmax
from lm.model.attention_bias import AttentionBias, BiasTable
from lm.model.block import Block, Layer
from lm.model.embed import Embed, RowTable
from lm.model.heads import FirstTokenFeature, Head, LMHead, TokenClassifier, TransformHead
from lm.model.kv_sources import CrossKV, KVSource, SelfKV
from lm.model.layers import LayerNorm
from lm.model.masks import Bidirectional
from lm.model.mlp import MLP
from lm.model.positions import Learned
from lm.model.residual import PostNorm
from lm.model.special.branch import Branched
from lm.model.special.convolution import Convolution
from lm.model.special.disentangled import ContentToPosition, Distances, PositionToContent
from lm.model.special.enhanced_decoder import EnhancedDecoderLayer
from lm.model.stack import Stack
from lm.model.transformer import LanguageModel, Transformer
from lm.zoo import bert
from lm.zoo.family import Family, Sizes
from lm.zoo.parts import head_size, layer_ties

SIZES: Sizes = {"base": bert.BASE, "large": bert.LARGE, "xlarge": {**bert.LARGE, "layers": 48}}
XLARGE = {"layers": 24, "d_model": 1536, "heads": 24, "conv_width": 3, "conv_activation": "gelu"}
V2: Sizes = {
    "xlarge": XLARGE,
    "xxlarge": {**XLARGE, "layers": 48},
    "v3-xsmall": {"layers": 12, "d_model": 384, "heads": 6},
    "v3-small": {**bert.BASE, "layers": 6},
    "v3-base": bert.BASE,
    "v3-large": bert.LARGE,
    "v3-multilingual-base": {**bert.BASE, "vocab": 251000},
}
TERMS: dict[str, Callable[..., AttentionBias]] = {"c2p": ContentToPosition, "p2c": PositionToContent}


def deberta(
    *,
    layers: int,
    d_model: int,
    heads: int,
    head_dim: int | None = None,
    d_ff: int | None = None,
    vocab: int = 50265,
    context: int = 512,
    types: int = 0,
    embed_width: int | None = None,
    activation: str = "gelu",
    eps: float = 1e-7,
    absolute: bool = False,
    relative: bool = True,
    terms: tuple[str, ...] = ("c2p", "p2c"),
    max_distance: int | None = None,
    buckets: int = 0,
    relative_norm: bool = False,
    shared: bool = False,
    key_bias: bool = False,
    conv_width: int = 0,
    conv_activation: str = "tanh",
    conv_groups: int = 1,
    mask_decoder: int = 0,
    dropout: float = 0.0,
    pretraining: str = "mlm",
    tied: bool = True,
) -> LanguageModel:
    """A DeBERTa of any shape. `terms` are those of distances: "c2p" (content asks for position), "p2c"; without
    `relative` they count in the scores' scale only. Distances are told apart up to `max_distance`, by default
    `context`, each by itself or in `buckets`; with `shared` the attention's own projections map them. `absolute`
    positions and `types` of tokens are added to the input where there are any. Without a `conv_width` there is no
    convolution. `pretraining` is "mlm" (masked tokens) or "rtd" (which tokens were replaced: the third version). If
    `mask_decoder` is not 0, the last layer asks that many times (2 in the published code)."""
    init = Normal(0.02)
    norm = LayerNorm(eps)
    head_dim = head_dim or head_size(d_model, heads)
    max_distance = max_distance or context
    distances = Distances(buckets, max_distance) if buckets else Distances(max_distance)
    biased = {"c2p": key_bias, "p2c": True}
    attention = functools.partial(
        Attention,
        heads=heads,
        head_dim=head_dim,
        mask=Bidirectional(),
        bias=tuple(TERMS[name](distances, biased[name], init) for name in checked_terms(terms) if relative),
        projections=Projections(("q", "k", "v", "o") if key_bias else ("q", "v", "o"), init=init, out_init=init),
        softmax=Softmax((head_dim * (1 + len(terms))) ** -0.5),
        dropout=dropout,
    )
    mlp = MLP(d_ff or 4 * d_model, activation, init=init, out_init=init)

    def layer(source: KVSource) -> Block:
        return Block((("attention", attention(source=source)), ("mlp", mlp)), PostNorm(norm, dropout=dropout))

    blocks: list[Layer] = [layer(SelfKV())] * layers
    tables: dict[str, BiasTable] = {}
    if conv_width:
        branch = Convolution(conv_width, conv_groups, conv_activation, dropout, init)
        blocks[0] = Branched(layer(SelfKV()), branch, norm)
    if mask_decoder and layers < 2:
        raise UserError(
            f"model.mask_decoder={mask_decoder} asks about what the layer before the last gives: use 2 layers"
        )
    if mask_decoder:
        blocks = [*blocks[:-1], EnhancedDecoderLayer(layer(CrossKV("context")), mask_decoder)]
        tables["absolute"] = BiasTable(context, d_model, init=init)
    if relative:
        tables["relative"] = BiasTable(2 * distances.span, norm=norm if relative_norm else None, init=init)
    stack = Stack.of(blocks, tables=tuple(tables.items()))
    width = None if embed_width in (None, d_model) else embed_width
    embed = Embed(
        vocab,
        Learned(context, init=init) if absolute else None,
        extra=(RowTable("types", types, init),) if types else (),
        norm=norm,
        width=width,
        project="sum" if width else "end",
        dropout=dropout,
        init=init,
    )
    heads_of: dict[str, Head] = {
        "mlm": TransformHead(LMHead(vocab, bias=True, init=init), norm, activation, width, init=init),
        "rtd": FirstTokenFeature(TokenClassifier(1, activation, init=init), norm),
    }
    if pretraining not in heads_of:
        raise UserError(f"model.pretraining={pretraining!r} is unknown{nearest(pretraining, heads_of)}")
    ties: Ties = (("head/lm/w", "body/embed/token"),) if tied and pretraining == "mlm" else ()
    for i, name in enumerate(terms if relative and shared else ()):
        whole, own = {"c2p": ("key", "k"), "p2c": ("query", "q")}[name]
        ties += layer_ties(stack, f"attention/terms/{i}/{whole}", f"attention/{own}")
    return LanguageModel(Transformer(d_model, embed, stack), heads_of[pretraining], ties)


def checked_terms(terms: tuple[str, ...]) -> tuple[str, ...]:
    if set(terms) - TERMS.keys() or len(set(terms)) < len(terms):
        raise UserError(f"terms={list(terms)} of distances must be some of {', '.join(TERMS)}, each once")
    return terms


deberta_v2 = functools.partial(deberta, vocab=128100, key_bias=True, buckets=256, shared=True, relative_norm=True)
FAMILIES = {
    "deberta": Family(deberta, SIZES, "arXiv 2006.03654"),
    "deberta_v2": Family(deberta_v2, V2, "arXiv 2006.03654, 2111.09543"),
}
