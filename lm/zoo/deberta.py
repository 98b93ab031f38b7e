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
from lm.model.attention import Attention
from lm.model.attention_bias import AttentionBias, BiasTable, ContentToPosition, Distances, PositionToContent
from lm.model.block import Block, EnhancedDecoderLayer, Layer, ParallelConvolution
from lm.model.embed import Embed, RowTable
from lm.model.heads import FirstTokenFeature, Head, LMHead, SequenceClassifier, TokenClassifier, TransformHead
from lm.model.kv_sources import CrossKV, KVSource, SelfKV
from lm.model.layers import LayerNorm
from lm.model.masks import Bidirectional
from lm.model.mlp import MLP
from lm.model.positions import Learned
from lm.model.residual import PostNorm
from lm.model.special.convolution import Convolution
from lm.model.stack import Stack
from lm.model.transformer import LanguageModel, Transformer
from lm.zoo import bert
from lm.zoo.dialect import (
    ANSWERS,
    BASE,
    Class,
    Config,
    Custom,
    Dialect,
    Field,
    Fixed,
    Knob,
    Knobs,
    Unused,
    act,
    flag,
    labels,
    layers_heads,
    token_labels,
)
from lm.zoo.family import Family, Sizes
from lm.zoo.names import CONVOLUTION, LAYER, QKV, SAME, Layout, TensorNames, rows, unused
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
    farthest: int | None = None,
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
    `relative` they count in the scores' scale only. Distances are told apart up to `farthest`, by default the context,
    each by itself or in `buckets`; with `shared` the attention's own projections map them. `absolute` positions and
    `types` of tokens are added to the input where there are any. Without a `conv_width` there is no convolution.
    `pretraining` is "mlm" (masked tokens) or "rtd" (which tokens were replaced: the third version). If `mask_decoder`
    is not 0, the last layer asks that many times (2 in the published code)."""
    init = Normal(0.02)
    norm = LayerNorm(eps)
    head_dim = head_dim or head_size(d_model, heads)
    farthest = farthest or context
    distances = Distances(buckets, farthest) if buckets else Distances(farthest)
    biased = {"c2p": key_bias, "p2c": True}
    attention = functools.partial(
        Attention,
        heads=heads,
        head_dim=head_dim,
        mask=Bidirectional(),
        terms=tuple(TERMS[name](distances, biased[name], init) for name in checked_terms(terms) if relative),
        biases=("q", "k", "v", "o") if key_bias else ("q", "v", "o"),
        scale=(head_dim * (1 + len(terms))) ** -0.5,
        dropout=dropout,
        init=init,
        out_init=init,
    )
    mlp = MLP(d_ff or 4 * d_model, activation, init=init, out_init=init)

    def layer(source: KVSource) -> Block:
        return Block((("attention", attention(source=source)), ("mlp", mlp)), PostNorm(norm, dropout=dropout))

    blocks: list[Layer] = [layer(SelfKV())] * layers
    tables: dict[str, BiasTable] = {}
    if conv_width:
        branch = Convolution(conv_width, conv_groups, conv_activation, dropout, init)
        blocks[0] = ParallelConvolution(layer(SelfKV()), branch, norm)
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


OWN = "lm_predictions.lm_head."  # the language model's head in DeBERTa's own code; BERT's in the `legacy` class
# What published files carry and models of other classes, or without absolute positions, do not have.
SPARE = (
    *unused("deberta.embeddings.position_embeddings.weight", f"{OWN}bias"),
    *bert.spare("deberta.encoder.LayerNorm", f"{OWN}dense", f"{OWN}LayerNorm", *bert.MLM[:2]),
    *bert.spare(*(f"mask_predictions.{part}" for part in ("dense", "LayerNorm", "classifier"))),
)


def _names(*layer: tuple) -> TensorNames:
    """transformers' names, `layer` being what the two model types call differently."""
    return (
        ("body/embed/token", "deberta.embeddings.word_embeddings.weight", SAME),
        ("body/embed/position/w", "deberta.embeddings.position_embeddings.weight", SAME),
        ("body/embed/types/w", "deberta.embeddings.token_type_embeddings.weight", SAME),
        *rows("body/embed/", "deberta.embeddings.", ("project", "embed_proj"), ("norm", "LayerNorm")),
        *layer,
        *rows(
            LAYER,
            "deberta.encoder.layer.{layer}.",
            ("attention/o", "attention.output.dense"),
            ("attention_norm", "attention.output.LayerNorm"),
            ("mlp/up", "intermediate.dense"),
            ("mlp/down", "output.dense"),
            ("mlp_norm", "output.LayerNorm"),
        ),
        ("body/stack/tables/relative/w", "deberta.encoder.rel_embeddings.weight", SAME),
        ("body/stack/tables/absolute/w", "deberta.embeddings.position_embeddings.weight", SAME),
        *rows("body/stack/tables/relative/", "deberta.encoder.", ("norm", "LayerNorm")),
        *rows(LAYER, "deberta.encoder.conv.", ("branch", "conv", CONVOLUTION), ("branch_norm", "LayerNorm")),
        *SPARE,
    )


SELF = "deberta.encoder.layer.{layer}.attention.self."


def _terms(key: str, query: str) -> TensorNames:
    """What the projections of the distances are called: either may be the only one."""
    return tuple(
        entry for i in (0, 1) for entry in rows(f"{LAYER}attention/terms/{i}/", SELF, ("key", key), ("query", query))
    )


# transformers' DebertaForMaskedLM and DebertaV2ForMaskedLM, and the head of the third version's own code.
HF = _names(
    *rows(LAYER, SELF, (QKV, "in_proj", Layout(transpose=True, groups="heads"))),
    (f"{LAYER}attention/q/b", f"{SELF}q_bias", SAME),
    (f"{LAYER}attention/v/b", f"{SELF}v_bias", SAME),
    *_terms("pos_proj", "pos_q_proj"),
)
HF_2 = _names(
    *rows(LAYER, SELF, ("attention/q", "query_proj"), ("attention/k", "key_proj"), ("attention/v", "value_proj")),
    *_terms("pos_key_proj", "pos_query_proj"),
) + rows(
    "head/", "mask_predictions.", ("sum_norm", "LayerNorm"), ("scores/dense", "dense"), ("scores/out", "classifier")
)
LM = (
    *rows("head/", "", ("dense", bert.MLM[0]), ("norm", bert.MLM[1])),
    *rows("head/", OWN, ("dense", "dense"), ("norm", "LayerNorm")),
)


def _with_head(names: TensorNames) -> Callable[[Config], TensorNames]:
    return lambda config: (
        *names,
        *bert.lm_names(config, bert.MLM[2], bert.MLM_BIAS),
        ("head/lm/b", f"{OWN}bias", SAME),
    )


POOLER = act("activation", "pooler_hidden_act", "gelu")


def _pooled(config: Config) -> SequenceClassifier:
    return SequenceClassifier(labels(config), **POOLER.read(config))


def _classes(stem: str) -> dict[str, Class]:
    pooled = rows("head/", "", ("dense", "pooler.dense"), ("out", "classifier"))
    return {
        f"{stem}ForMaskedLM": Class(names=LM),
        f"{stem}Model": BASE,
        f"{stem}ForSequenceClassification": Class(head=_pooled, names=pooled),
        f"{stem}ForTokenClassification": token_labels("classifier"),
        f"{stem}ForQuestionAnswering": ANSWERS,
    }


def _read_pooler(config: Config) -> Knobs:
    width = config.get("pooler_hidden_size")
    if width not in (None, config["hidden_size"]):
        raise UserError(f"pooler_hidden_size={width!r} is not supported, only hidden_size={config['hidden_size']!r}")
    return {}


def _write_pooler(knobs: Knobs) -> dict:
    head = knobs["head"]
    pooled = (
        POOLER.write({"activation": head.activation})
        if isinstance(head, SequenceClassifier) and head.activation
        else {}
    )
    return {"pooler_hidden_size": knobs["d_model"], **pooled}


def _read_terms(terms: str | list[str] | None) -> tuple[str, ...]:
    listed = terms.lower().split("|") if isinstance(terms, str) else terms or []
    return checked_terms(tuple(term.strip() for term in listed))


def _fields(vocab: int) -> tuple[Field, ...]:
    return (
        *layers_heads("hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size"),
        Knob("vocab", "vocab_size", vocab),
        Knob("context", "max_position_embeddings", 512),
        Knob("types", "type_vocab_size", 0),
        Custom(
            ("embedding_size",),
            lambda config: {"embed_width": config.get("embedding_size")},
            lambda knobs: {"embedding_size": knobs["embed_width"] or knobs["d_model"]},
        ),
        act("activation", "hidden_act", "gelu"),
        Knob("eps", "layer_norm_eps", 1e-7),
        Knob("absolute", "position_biased_input", True),
        Knob("relative", "relative_attention", False),
        Knob("terms", "pos_att_type", None, _read_terms, list),
        Knob("farthest", "max_relative_positions", -1, lambda n: n if n > 0 else None, lambda n: n or -1),
        Custom(("pooler_hidden_size", "pooler_hidden_act"), _read_pooler, _write_pooler),
        Custom(
            ("tie_word_embeddings", "legacy"),
            lambda config: {"tied": config.get("tie_word_embeddings", True) or not config.get("legacy", True)},
            lambda knobs: {"tie_word_embeddings": knobs["tied"], "legacy": True},
        ),
        Unused("hidden_dropout_prob", "attention_probs_dropout_prob", "pooler_dropout", "cls_dropout"),
    )


DIALECTS = {
    "deberta": Dialect(
        "deberta", _classes("Deberta"), (*_fields(50265), Fixed("talking_head", (False,))), _with_head(HF), "deberta."
    ),
    "deberta-v2": Dialect(
        "deberta_v2",
        _classes("DebertaV2"),
        (
            *_fields(128100),
            Knob("head_dim", "attention_head_size", None),
            Knob("buckets", "position_buckets", -1, lambda n: max(n, 0), lambda n: n or -1),
            flag("shared", "share_att_key", False),
            Knob(
                "relative_norm",
                "norm_rel_ebd",
                "none",
                lambda x: "layer_norm" in x.lower(),
                lambda x: ["none", "layer_norm"][x],
            ),
            Knob("conv_width", "conv_kernel_size", 0, lambda n: max(n, 0)),
            act("conv_activation", "conv_act", "tanh"),
            Knob("conv_groups", "conv_groups", 1),
        ),
        _with_head(HF_2),
        "deberta.",
    ),
}
