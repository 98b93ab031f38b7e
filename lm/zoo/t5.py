"""T5 (Raffel et al. 2020, arXiv 1910.10683) and what was trained in its shapes: T5 1.1 (Shazeer 2020, 2002.05202; T0,
Flan-T5 and Tk-Instruct continue it), mT5, UMT5, ByT5, UL2, CodeT5, CPM-2 and ProtT5.

Encoder-decoder of pre-RMSNorm blocks without biases. Scores are not scaled; positions are a bias per head and bucketed
distance, from one table for all layers of a stack (UMT5: one for each). One token table serves encoder, decoder and
head, whose input is scaled by d_model ** -0.5; 1.1 has a head of its own, unscaled, and gated GELU."""

import functools
from collections.abc import Callable
from typing import Any

from lm.core.errors import UserError, nearest
from lm.core.param import FanIn, Normal
from lm.model.attention import Attention
from lm.model.attention_bias import BiasTable, BucketedBias
from lm.model.block import Block, Named
from lm.model.embed import Embed
from lm.model.heads import LMHead, NoHead, SequenceClassifier
from lm.model.kv_sources import CrossKV
from lm.model.layers import RMSNorm
from lm.model.masks import Bidirectional, Window
from lm.model.mlp import MLP, GatedMLP
from lm.model.residual import PreNorm
from lm.model.special.summaries import Summaries
from lm.model.stack import Stack
from lm.model.transformer import EncoderDecoder, LanguageModel, Model, Transformer
from lm.zoo.dialect import (
    ACTIVATIONS,
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
    labels,
    layers_heads,
    token_labels,
)
from lm.zoo.family import Family, Sizes
from lm.zoo.names import LINEAR, SAME, Layout, TensorNames, rows, unused

Tables = tuple[tuple[str, Any], ...]

_1_1 = {"activation": "gelu_tanh", "gated": True, "tied": False}
_SMALL = {"layers": 8, "d_model": 512, "heads": 6, "d_ff": 1024}
_BASE = {"layers": 12, "d_model": 768, "heads": 12, "d_ff": 2048}
_LARGE = {"layers": 24, "d_model": 1024, "heads": 16, "d_ff": 2816}
_XL = {"layers": 24, "d_model": 2048, "heads": 32, "d_ff": 5120}
_XXL = {"layers": 24, "d_model": 4096, "heads": 64, "d_ff": 10240}
FIVE = {"small": _SMALL, "base": _BASE, "large": _LARGE, "xl": _XL, "xxl": _XXL}
_1_0 = {
    "base": {"layers": 12, "d_model": 768, "heads": 12, "d_ff": 3072},
    "large": {"layers": 24, "d_model": 1024, "heads": 16, "d_ff": 4096},
    "3b": {"layers": 24, "d_model": 1024, "heads": 32, "head_dim": 128, "d_ff": 16384},
    "11b": {"layers": 24, "d_model": 1024, "heads": 128, "head_dim": 128, "d_ff": 65536},
}
SIZES: Sizes = {
    "small": {"layers": 6, "d_model": 512, "heads": 8, "d_ff": 2048},
    **_1_0,
    **{f"1.1-{size}": {**knobs, **_1_1} for size, knobs in FIVE.items()},
}
# Xue et al. 2021, arXiv 2105.13626, table 1: encoders three times as deep as decoders.
BYT5: Sizes = {
    "small": {"layers": 12, "decoder_layers": 4, "d_model": 1472, "heads": 6, "d_ff": 3584},
    "base": {"layers": 18, "decoder_layers": 6, "d_model": 1536, "heads": 12, "d_ff": 3968},
    "large": {"layers": 36, "decoder_layers": 12, "d_model": 1536, "heads": 16, "d_ff": 3840},
    "xl": {"layers": 36, "decoder_layers": 12, "d_model": 2560, "heads": 32, "d_ff": 6720},
    "xxl": {"layers": 36, "decoder_layers": 12, "d_model": 4672, "heads": 64, "d_ff": 12352},
}
UL2 = {"20b": {"layers": 32, "d_model": 4096, "heads": 16, "head_dim": 256, "d_ff": 16384}}
CODET5 = {"base": _1_0["base"], "large": _1_0["large"], "plus-220m": _1_0["base"], "plus-770m": _1_0["large"]}
# The first is trained on Chinese alone (Zhang et al. 2021, arXiv 2106.10715).
CPM2 = {"11b": {**_XXL, "vocab": 26240}, "11b-bilingual": {**_XXL, "vocab": 51968}}
# Elnaggar et al. 2021, arXiv 2007.06225
PROTT5 = {"xl": _1_0["3b"], "xxl": _1_0["11b"]}


def t5(
    *,
    layers: int,
    d_model: int,
    heads: int,
    d_ff: int,
    decoder_layers: int | None = None,
    head_dim: int = 64,
    vocab: int = 32128,
    activation: str = "relu",
    gated: bool = False,
    buckets: int = 32,
    farthest: int = 128,
    shared_bias: bool = True,
    eps: float = 1e-6,
    dropout: float = 0.0,
    tied: bool = True,
    scaled: bool | None = None,
    encoder_only: bool = False,
    radius: int | None = None,
    block: int | None = None,
) -> Model:
    """A T5 of any shape; `SIZES` has the published ones. The decoder has as many layers as the encoder if
    `decoder_layers` is not given. The head's input is scaled if `scaled`, by default where its table is tied. With
    `encoder_only` the encoder alone, whose states are the result. An encoder with a `radius` attends no farther, and
    with a `block` to summaries of that many tokens besides (LongT5)."""
    init = Normal(d_model**-0.5)
    attention = attention_of(heads, head_dim, dropout)
    feed_forward = GatedMLP if gated else MLP
    mlp = feed_forward(d_ff, activation, bias=False, dropout=dropout, init=FanIn(), out_init=FanIn())
    bias = functools.partial(BucketedBias, buckets=buckets, farthest=farthest, init=init)
    tables = ("relative_bias",) if block is None else ("near_bias", "far_bias")  # of the encoder
    near, *far = tables if shared_bias else (None,) * len(tables)
    reads = attention(
        mask=Bidirectional() if radius is None else Window(radius + 1, radius + 1),
        terms=(bias(near, bidirectional=True),),
        summaries=None if block is None else Summaries(block, RMSNorm(eps), bias(far[0], bidirectional=True)),
    )
    writes = attention(terms=(bias("relative_bias" if shared_bias else None),))
    cross = attention(mask=Bidirectional(), source=CrossKV())
    table = BiasTable(buckets, heads, init=init)
    return assembled(
        (("attention", reads), ("mlp", mlp)),
        () if encoder_only else (("attention", writes), ("cross", cross), ("mlp", mlp)),
        depths=(layers, layers if decoder_layers is None else decoder_layers),
        tables=tuple((name, table) for name in tables) if shared_bias else (),
        decoder_tables=(("relative_bias", table),) if shared_bias else (),
        d_model=d_model,
        vocab=vocab,
        norm=RMSNorm(eps),
        dropout=dropout,
        tied=tied,
        scaled=tied if scaled is None else scaled,
    )


def attention_of(heads: int, head_dim: int, dropout: float = 0.0) -> Callable[..., Attention]:
    """Attention whose scores are not scaled: its queries start smaller instead."""
    init, q_init = FanIn(), FanIn(1 / head_dim)
    return functools.partial(
        Attention, heads, head_dim, scale=1.0, dropout=dropout, init=init, q_init=q_init, out_init=init
    )


def assembled(
    encoder: Named,
    decoder: Named,
    *,
    depths: tuple[int, int],
    tables: Tables,
    decoder_tables: Tables,
    d_model: int,
    vocab: int,
    norm: RMSNorm,
    dropout: float,
    tied: bool,
    scaled: bool,
) -> Model:
    """An encoder-decoder from the parts of its layers; the encoder alone where the decoder has none."""

    def tower(parts: Named, depth: int, tables: Tables) -> Transformer:
        if depth < 1:
            raise UserError(f"model.decoder_layers={depth} must be at least 1; for none set model.encoder_only")
        stack = Stack.of([Block(parts, PreNorm(norm, dropout))] * depth, norm=norm, tables=tables)
        return Transformer(d_model, Embed(vocab, dropout=dropout, init=Normal(1.0)), stack)

    if not decoder:
        return LanguageModel(tower(encoder, depths[0], tables), NoHead())
    ties = (("encoder/embed/token", "decoder/embed/token"), ("head/w", "decoder/embed/token"))
    return EncoderDecoder(
        encoder=tower(encoder, depths[0], tables),
        decoder=tower(decoder, depths[1], decoder_tables),
        head=LMHead(vocab, scale=d_model**-0.5 if scaled else 1.0, init=Normal(d_model**-0.5)),
        ties=ties if tied else ties[:1],
    )


t5_1_1 = functools.partial(t5, activation="gelu_tanh", gated=True, tied=False)
FAMILIES = {
    "t5": Family(t5, SIZES, "arXiv 1910.10683, 2002.05202"),
    "mt5": Family(functools.partial(t5_1_1, vocab=250112), FIVE, "arXiv 2010.11934"),
    "umt5": Family(
        functools.partial(t5_1_1, vocab=256384, shared_bias=False),
        {size: FIVE[size] for size in ("small", "base", "xl", "xxl")},
        "arXiv 2304.09151",
    ),
    "byt5": Family(functools.partial(t5_1_1, vocab=384), BYT5, "arXiv 2105.13626"),
    "ul2": Family(functools.partial(t5_1_1, activation="silu"), UL2, "arXiv 2205.05131"),
    "codet5": Family(functools.partial(t5, vocab=32100), CODET5, "arXiv 2109.00859, 2305.07922"),
    "cpm2": Family(t5_1_1, CPM2, "arXiv 2106.10715"),
    "prott5": Family(functools.partial(t5, vocab=128), PROTT5, "arXiv 2007.06225"),
}


def _only(kind: type) -> Layout:
    return Layout(transpose=True, only=lambda part: isinstance(part, kind))


def stack_names(ours: str, theirs: str, cross: bool = False, attention: TensorNames | None = None) -> TensorNames:
    """What the tensors of a stack are called; `attention`: those of what attends to its own inputs."""
    last = 2 if cross else 1
    return (
        *(own_names(ours, theirs, "SelfAttention") if attention is None else attention),
        *rows(
            f"{ours}/stack/{{layer}}/",
            f"{theirs}block.{{layer}}.layer.",
            ("attention_norm", "0.layer_norm"),
            *((f"cross/{x}", f"1.EncDecAttention.{x}") for x in "qkvo"),
            ("cross_norm", "1.layer_norm"),
            ("mlp_norm", f"{last}.layer_norm"),
            ("mlp/up", f"{last}.DenseReluDense.wi", _only(MLP)),
            ("mlp/gate", f"{last}.DenseReluDense.wi_0"),
            ("mlp/up", f"{last}.DenseReluDense.wi_1", _only(GatedMLP)),
            ("mlp/down", f"{last}.DenseReluDense.wo"),
        ),
        *rows(f"{ours}/stack/", theirs, ("norm", "final_layer_norm")),
    )


def own_names(ours: str, theirs: str, name: str, layout: Layout = LINEAR, table: str = "relative_bias") -> TensorNames:
    """What the tensors of attention to the own inputs are called, which is called `name`."""
    bias = f"{theirs}block.{{layer}}.layer.0.{name}.relative_attention_bias.weight"
    entries = ((f"attention/{x}", f"{name}.{x}", layout) for x in "qkvo")
    return (
        (f"{ours}/stack/tables/{table}/w", bias.replace("{layer}", "0"), SAME),
        (f"{ours}/stack/{{layer}}/attention/terms/0/w", bias, SAME),
        *rows(f"{ours}/stack/{{layer}}/", f"{theirs}block.{{layer}}.layer.0.", *entries),
    )


OwnNames = Callable[[str, str], TensorNames]  # our and their path of a stack -> names of attention to own inputs


def pair_names(prefix: str = "", own: OwnNames | None = None) -> TensorNames:
    """What the tensors of encoder and decoder are called in classes that put `prefix` before them."""
    return (
        ("decoder/embed/token", f"{prefix}shared.weight", SAME),
        ("encoder/embed/token", f"{prefix}encoder.embed_tokens.weight", SAME),
        ("decoder/embed/token", f"{prefix}decoder.embed_tokens.weight", SAME),
        *stack_names("encoder", f"{prefix}encoder.", attention=own and own("encoder", f"{prefix}encoder.")),
        *stack_names("decoder", f"{prefix}decoder.", cross=True),
        ("head/w", "lm_head.weight", SAME),
        *unused(f"{prefix}decoder.block.0.layer.1.EncDecAttention.relative_attention_bias.weight"),
    )


def encoder_names(prefix: str = "", own: OwnNames | None = None) -> TensorNames:
    """The same for an encoder alone."""
    return (
        ("body/embed/token", f"{prefix}shared.weight", SAME),
        ("body/embed/token", f"{prefix}encoder.embed_tokens.weight", SAME),
        *stack_names("body", f"{prefix}encoder.", attention=own and own("body", f"{prefix}encoder.")),
    )


PREFIX = "transformer."  # of the base model within classifiers
PAIR, ENCODER = {"encoder_only": False}, {"encoder_only": True}


def _classifier(config: Config) -> SequenceClassifier:
    end = config.get("eos_token_id", 1)
    return SequenceClassifier(labels(config), at="end", end=end, row="encoder/tokens", activation="tanh")


def classes(stem: str) -> dict[str, Class]:
    tags = token_labels("classifier")
    dense = rows("head/", "classification_head.", ("dense", "dense"), ("out", "out_proj"))
    return {
        f"{stem}ForConditionalGeneration": Class(PAIR, names=pair_names()),
        f"{stem}Model": Class(PAIR, BASE.head, pair_names()),
        f"{stem}EncoderModel": Class(ENCODER, names=encoder_names()),
        f"{stem}ForSequenceClassification": Class(PAIR, _classifier, (*pair_names(PREFIX), *dense)),
        f"{stem}ForTokenClassification": Class(ENCODER, tags.head, (*encoder_names(PREFIX), *tags.names)),
        f"{stem}ForQuestionAnswering": Class(PAIR, ANSWERS.head, (*pair_names(), *ANSWERS.names)),
    }


def _read_activation(config: Config, default: str) -> Knobs:
    """ "relu", "gated-gelu" and so on; `gated-gelu` alone means the tanh form."""
    told = config.get("feed_forward_proj", default)
    if not isinstance(told, str):
        raise UserError(f"feed_forward_proj={told!r} is not understood: give the name of an activation")
    gate, _, name = told.rpartition("-")
    if "dense_act_fn" in config and (own := config["dense_act_fn"]) not in [*ACTIVATIONS]:
        raise UserError(f"dense_act_fn={own!r} is an unknown activation{nearest(str(own), ACTIVATIONS)}")
    name = config.get("dense_act_fn", "gelu_new" if told == "gated-gelu" else name)
    if gate not in ("", "gated") or name not in ACTIVATIONS:
        known = ", ".join(ACTIVATIONS)
        raise UserError(f"feed_forward_proj={told!r} is not supported: with `gated-` before or not, one of {known}")
    gated = config.get("is_gated_act")
    return {"gated": gate == "gated" if gated is None else gated, "activation": ACTIVATIONS[name]}


def _write_activation(knobs: Knobs) -> dict[str, str]:
    name = next(k for k, v in ACTIVATIONS.items() if v == knobs["activation"])
    if not knobs["gated"]:
        return {"feed_forward_proj": name}
    return {"feed_forward_proj": "gated-" + {"gelu_new": "gelu", "gelu": "gelu_python"}.get(name, name)}


def _read_head(config: Config) -> Knobs:
    """Files say that there are two tables, and thereby that 1.1's head is not scaled."""
    tied = config.get("tie_word_embeddings") is not False
    return {"tied": tied, "scaled": config.get("scale_decoder_outputs", tied)}


def _write_head(knobs: Knobs) -> dict[str, bool]:
    scaled = knobs["tied"] if knobs["scaled"] is None else knobs["scaled"]
    return {"tie_word_embeddings": knobs["tied"], "scale_decoder_outputs": scaled}


def fields(activation: str) -> tuple[Field, ...]:
    """Those that the model types of this line have, `feed_forward_proj` with that default."""
    reader = functools.partial(_read_activation, default=activation)
    return (
        *layers_heads("d_model", "num_layers", "num_heads", "d_ff"),
        Knob("decoder_layers", "num_decoder_layers", None),
        Knob("head_dim", ("d_kv", "head_dim"), 64),
        Knob("vocab", "vocab_size"),
        Knob("buckets", "relative_attention_num_buckets", 32),
        Knob("farthest", "relative_attention_max_distance", 128),
        Knob("eps", "layer_norm_epsilon", 1e-6),
        Custom(("feed_forward_proj", "dense_act_fn", "is_gated_act"), reader, _write_activation),
        Fixed("is_decoder", (False,)),
        Unused("dropout_rate", "classifier_dropout", "initializer_factor", "n_positions", "output_past"),
    )


HEAD = Custom(("tie_word_embeddings", "scale_decoder_outputs"), _read_head, _write_head)
UNSCALED = Custom(
    ("tie_word_embeddings",),
    lambda config: {"tied": config.get("tie_word_embeddings") is not False, "scaled": False},
    lambda knobs: {"tie_word_embeddings": knobs["tied"]},
)
T5_CLASSES = classes("T5")
T5_CLASSES["T5WithLMHeadModel"] = T5_CLASSES["T5ForConditionalGeneration"]  # its first name
DIALECTS = {
    "t5": Dialect("t5", T5_CLASSES, (*fields("relu"), HEAD), (), PREFIX, one_table=True),
    "mt5": Dialect("mt5", classes("MT5"), (*fields("gated-gelu"), UNSCALED), (), PREFIX, one_table=True),
    "umt5": Dialect("umt5", classes("UMT5"), (*fields("gated-gelu"), HEAD), (), PREFIX, one_table=True),
}
