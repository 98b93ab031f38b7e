"""transformers' T5, MT5 and UMT5. Classes without a decoder are other models of the same files, so that each class has
names of its own."""

import functools
from collections.abc import Callable

from lm.core.errors import UserError, nearest
from lm.hub.tables.classes import ANSWERS, BASE_MODEL, token_classifier
from lm.hub.tables.format import (
    ACTIVATIONS,
    ANY_TOKENIZER,
    Config,
    Custom,
    Field,
    Fixed,
    HFClass,
    HFFormat,
    Knob,
    Knobs,
    Unused,
    label_count,
    size_fields,
)
from lm.hub.tables.tensor_names import LINEAR, SAME, Layout, ModuleNames, TensorNames, entries, ignored
from lm.model.heads import SequenceClassifier
from lm.model.mlp import MLP, GatedMLP


def _only(kind: type) -> Layout:
    return Layout(transpose=True, only=lambda part: isinstance(part, kind))


DENSE: ModuleNames = (
    ("mlp/up", "DenseReluDense.wi", _only(MLP)),
    ("mlp/gate", "DenseReluDense.wi_0"),
    ("mlp/up", "DenseReluDense.wi_1", _only(GatedMLP)),
    ("mlp/down", "DenseReluDense.wo"),
)


def stack_names(
    ours: str, theirs: str, cross: bool = False, attention: TensorNames | None = None, mlp: ModuleNames = DENSE
) -> TensorNames:
    """What the tensors of a stack are called; `attention`: those of what attends to its own inputs."""
    last = 2 if cross else 1
    return (
        *(own_names(ours, theirs, "SelfAttention") if attention is None else attention),
        *entries(
            f"{ours}/stack/{{layer}}/",
            f"{theirs}block.{{layer}}.layer.",
            ("attention_norm", "0.layer_norm"),
            *((f"cross/{x}", f"1.EncDecAttention.{x}") for x in "qkvo"),
            ("cross_norm", "1.layer_norm"),
            ("mlp_norm", f"{last}.layer_norm"),
            *((path, f"{last}.{name}", *layout) for path, name, *layout in mlp),
        ),
        *entries(f"{ours}/stack/", theirs, ("norm", "final_layer_norm")),
    )


def own_names(ours: str, theirs: str, name: str, layout: Layout = LINEAR, table: str = "relative_bias") -> TensorNames:
    """What the tensors of attention to the own inputs are called, which is called `name`."""
    bias = f"{theirs}block.{{layer}}.layer.0.{name}.relative_attention_bias.weight"
    projections = ((f"attention/{x}", f"{name}.{x}", layout) for x in "qkvo")
    return (
        (f"{ours}/stack/tables/{table}/w", bias.replace("{layer}", "0"), SAME),
        (f"{ours}/stack/{{layer}}/attention/terms/0/w", bias, SAME),
        *entries(f"{ours}/stack/{{layer}}/", f"{theirs}block.{{layer}}.layer.0.", *projections),
    )


OwnNames = Callable[[str, str], TensorNames]  # our and their path of a stack -> names of attention to own inputs


def pair_names(prefix: str = "", own: OwnNames | None = None, mlp: ModuleNames = DENSE) -> TensorNames:
    """What the tensors of encoder and decoder are called in classes that put `prefix` before them."""
    return (
        ("decoder/embed/token", f"{prefix}shared.weight", SAME),
        ("encoder/embed/token", f"{prefix}encoder.embed_tokens.weight", SAME),
        ("decoder/embed/token", f"{prefix}decoder.embed_tokens.weight", SAME),
        *stack_names("encoder", f"{prefix}encoder.", attention=own and own("encoder", f"{prefix}encoder."), mlp=mlp),
        *stack_names("decoder", f"{prefix}decoder.", cross=True, mlp=mlp),
        ("head/w", "lm_head.weight", SAME),
        *ignored(f"{prefix}decoder.block.0.layer.1.EncDecAttention.relative_attention_bias.weight"),
    )


def encoder_names(prefix: str = "", own: OwnNames | None = None, mlp: ModuleNames = DENSE) -> TensorNames:
    """The same for an encoder alone."""
    return (
        ("body/embed/token", f"{prefix}shared.weight", SAME),
        ("body/embed/token", f"{prefix}encoder.embed_tokens.weight", SAME),
        *stack_names("body", f"{prefix}encoder.", attention=own and own("body", f"{prefix}encoder."), mlp=mlp),
    )


PREFIX = "transformer."  # of the base model within classifiers
PAIR, ENCODER = {"encoder_only": False}, {"encoder_only": True}


def _classifier(config: Config) -> SequenceClassifier:
    end = config.get("eos_token_id", 1)
    return SequenceClassifier(label_count(config), at="end", end=end, row="encoder/tokens", activation="tanh")


def classes(stem: str) -> dict[str, HFClass]:
    tags = token_classifier("classifier")
    dense = entries("head/", "classification_head.", ("dense", "dense"), ("out", "out_proj"))
    return {
        f"{stem}ForConditionalGeneration": HFClass(PAIR, names=pair_names()),
        f"{stem}Model": HFClass(PAIR, BASE_MODEL.head, pair_names()),
        f"{stem}EncoderModel": HFClass(ENCODER, names=encoder_names()),
        f"{stem}ForSequenceClassification": HFClass(PAIR, _classifier, (*pair_names(PREFIX), *dense)),
        f"{stem}ForTokenClassification": HFClass(ENCODER, tags.head, (*encoder_names(PREFIX), *tags.names)),
        f"{stem}ForQuestionAnswering": HFClass(PAIR, ANSWERS.head, (*pair_names(), *ANSWERS.names)),
    }


def _read_activation(config: Config, default: str) -> Knobs:
    """ "relu", "gated-gelu" and so on; `gated-gelu` alone means the tanh form."""
    given = config.get("feed_forward_proj", default)
    if not isinstance(given, str):
        raise UserError(f"feed_forward_proj={given!r} is not understood: give the name of an activation")
    gate, _, name = given.rpartition("-")
    if "dense_act_fn" in config and (own := config["dense_act_fn"]) not in [*ACTIVATIONS]:
        raise UserError(f"dense_act_fn={own!r} is an unknown activation{nearest(str(own), ACTIVATIONS)}")
    name = config.get("dense_act_fn", "gelu_new" if given == "gated-gelu" else name)
    if gate not in ("", "gated") or name not in ACTIVATIONS:
        known = ", ".join(ACTIVATIONS)
        raise UserError(f"feed_forward_proj={given!r} is not supported: with `gated-` before or not, one of {known}")
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


def t5_fields(default: str, *own: Field) -> tuple[Field, ...]:
    """Those that the model types of this line have, `feed_forward_proj` with that default."""
    reader = functools.partial(_read_activation, default=default)
    return (
        *size_fields("d_model", "num_layers", "num_heads", "d_ff"),
        Knob("decoder_layers", "num_decoder_layers", None),
        Knob("head_dim", ("d_kv", "head_dim"), 64),
        Knob("vocab", "vocab_size"),
        Knob("buckets", "relative_attention_num_buckets", 32),
        Knob("max_distance", "relative_attention_max_distance", 128),
        Knob("eps", "layer_norm_epsilon", 1e-6),
        Custom(("feed_forward_proj", "dense_act_fn", "is_gated_act"), reader, _write_activation),
        Fixed("is_decoder", (False,)),
        Unused("dropout_rate", "classifier_dropout", "initializer_factor", "n_positions", "output_past"),
        *own,
    )


HEAD = Custom(("tie_word_embeddings", "scale_decoder_outputs"), _read_head, _write_head)
UNSCALED = Custom(
    ("tie_word_embeddings",),
    lambda config: {"tied": config.get("tie_word_embeddings") is not False, "scaled": False},
    lambda knobs: {"tie_word_embeddings": knobs["tied"]},
)
T5_CLASSES = classes("T5")
MODEL_TYPES = {
    "t5": HFFormat(
        "t5",
        T5_CLASSES | {"T5WithLMHeadModel": T5_CLASSES["T5ForConditionalGeneration"]},  # its first name
        t5_fields("relu", HEAD),
        (),
        PREFIX,
        one_table=True,
        tokenizer="T5Tokenizer",
    ),
    "mt5": HFFormat(
        "mt5", classes("MT5"), t5_fields("gated-gelu", UNSCALED), (), PREFIX, one_table=True, tokenizer="T5Tokenizer"
    ),
    "umt5": HFFormat(
        "umt5",
        classes("UMT5"),
        t5_fields("gated-gelu", HEAD),
        (),
        PREFIX,
        one_table=True,
        tokenizer=ANY_TOKENIZER,
        tokenizer_before="T5Tokenizer",
    ),
}
