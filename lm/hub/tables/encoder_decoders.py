"""What BART and its relatives have in common in config.json, in their classes and in the names of their tensors."""

from types import MappingProxyType

from lm.core.errors import UserError
from lm.hub.tables.classes import ANSWERS, BASE_MODEL
from lm.hub.tables.format import (
    Config,
    Custom,
    Field,
    Fixed,
    HFClass,
    Knob,
    Knobs,
    Unused,
    activation,
    count,
    flag,
    overridden,
)
from lm.hub.tables.tensor_names import (
    OPTIONAL,
    SAME,
    ModuleNames,
    TensorNames,
    attention_names,
    entries,
    ignored,
    ignored_modules,
    mlp_names,
    norm_names,
    tower_names,
)
from lm.model.heads import SequenceClassifier
from lm.model.positions import Learned

ATTENTION: ModuleNames = attention_names("self_attn.", o="out_proj")
CROSS: ModuleNames = (
    *attention_names("encoder_attn.", o="out_proj", part="cross"),
    ("cross_norm", "encoder_attn_layer_norm"),
)
MLP: ModuleNames = mlp_names("fc1", "fc2")
NORMS: ModuleNames = norm_names("self_attn_layer_norm", "final_layer_norm")


def shares(config: Config) -> bool:
    """Whether encoder and decoder read one table. With an untied head, transformers keeps theirs apart too."""
    shared = config.get("share_encoder_decoder_embeddings", True)
    if not isinstance(shared, bool):
        raise UserError(f"share_encoder_decoder_embeddings={shared!r} is not understood: give true or false")
    return config.get("tie_word_embeddings", True) and shared


def tower(ours: str, theirs: str, attention: ModuleNames = ATTENTION) -> TensorNames:
    """The tensors of an encoder or decoder, below the prefix `theirs`."""
    return (
        *tower_names(
            ours,
            theirs,
            attention,
            CROSS,
            MLP,
            NORMS,
            layers="layers",
            token="embed_tokens",
            position="embed_positions",
            embed_norm="layernorm_embedding",
            norm="layer_norm",
        ),
        *entries(f"{ours}/embed/", theirs, ("token_norm", "layernorm_embedding")),
    )


def pair_names(config: Config, table: str, encoder: TensorNames, decoder: TensorNames) -> TensorNames:
    """The tensors of encoder and decoder but for their head. Where they have token tables of their own, files may hold
    a third one, `table`, that nothing reads."""
    return (*((("decoder/embed/token", table, SAME),) if shares(config) else ignored(table)), *encoder, *decoder)


HEAD: TensorNames = (("head/w", "lm_head.weight", SAME), ("head/offset", "final_logits_bias", OPTIONAL))


def encoder_decoder_names(config: Config) -> TensorNames:
    """What transformers' BartForConditionalGeneration and its kin call tensors, and those of a decoder alone in a file
    of both."""
    table = "model.shared.weight"
    return (
        *pair_names(config, table, tower("encoder", "model.encoder."), tower("decoder", "model.decoder.")),
        *tower("body", "model.decoder."),
        *((("body/embed/token", table, SAME),) if shares(config) else ()),
        *HEAD,
    )


class DecoderSize(Knob):
    """A size of the decoder's, which is the encoder's where it is not given."""

    def write(self, knobs: Knobs) -> dict:
        own = knobs[self.knob]
        return {self.keys[0]: knobs[self.knob.removeprefix("decoder_")] if own is None else own}


def learned_positions(offset: int) -> Knob:
    """A trained table of so many positions, the first of which is row `offset`."""
    return Knob(
        "position",
        "max_position_embeddings",
        from_hf=lambda longest: Learned(count("max_position_embeddings")(longest) + offset, offset),
        to_hf=lambda position: position.max_length,
    )


_PAIR: tuple[Field, ...] = (
    Knob("d_model", ("d_model", "hidden_size")),
    Knob("layers", ("encoder_layers", "num_hidden_layers")),
    Knob("heads", ("encoder_attention_heads", "num_attention_heads")),
    Knob("d_ff", "encoder_ffn_dim"),
    DecoderSize("decoder_layers", "decoder_layers"),
    DecoderSize("decoder_heads", "decoder_attention_heads"),
    DecoderSize("decoder_d_ff", "decoder_ffn_dim"),
    Knob("vocab", "vocab_size"),
    activation("activation_function", "gelu"),
    Custom(
        ("tie_word_embeddings",),
        lambda config: {"tied": config.get("tie_word_embeddings", True), "shared": shares(config)},
        lambda knobs: {"tie_word_embeddings": knobs["tied"]},
    ),
    Unused("dropout", "attention_dropout", "activation_dropout", "classifier_dropout", "classif_dropout"),
    Unused("encoder_layerdrop", "decoder_layerdrop", "init_std"),
)


def pair_fields(*own: Field) -> tuple[Field, ...]:
    """Fields of all encoder-decoders of this line, with a model type's own in place of those that say the same."""
    return overridden(_PAIR, own)


def encoder_decoder_fields(
    *own: Field, scaled: bool = False, norm_first: bool = False, embed_norm: bool = False
) -> tuple[Field, ...]:
    """The same of BART's nearest kin. Whether and where one norms is settled by the model type; older files, which tell
    it besides, may not contradict that. `scaled` is the default of scale_embedding."""
    return pair_fields(
        flag("scaled", "scale_embedding", scaled),
        Fixed("normalize_before", (norm_first,)),
        Fixed("normalize_embedding", (embed_norm,)),
        Fixed("add_final_layer_norm", (norm_first,)),
        Fixed("add_bias_logits", (False,)),
        *own,
    )


PAIR = MappingProxyType({"decoder_only": False})
ALONE = MappingProxyType({"decoder_only": True, "logit_offset": False})
# A decoder alone keeps what would read the encoder.
_DEAF = ignored_modules(*(f"model.decoder.layers.{{layer}}.{name}" for _, name in CROSS))


def _by_end(default_labels: int) -> HFClass:
    """A classifier by the decoder's state where the text that both read, the decoder one token later, ends."""

    def head(config: Config) -> SequenceClassifier:
        many = len(config["id2label"]) if config.get("id2label") else config.get("num_labels", default_labels)
        return SequenceClassifier(
            many, at="end", end=config.get("eos_token_id", 2), row="encoder/tokens", activation="tanh"
        )

    return HFClass(PAIR, head, entries("head/", "classification_head.", ("dense", "dense"), ("out", "out_proj")))


def encoder_decoder_classes(
    stem: str,
    lm: str = "ForConditionalGeneration",
    labels: int | None = None,
    answers: bool = False,
    alone: bool = True,
) -> dict[str, HFClass]:
    """The classes of a model type: language model, base model, where there are such a classifier of rows, with so many
    labels unless told otherwise, and of answers' ends, and the decoder alone."""
    found = {f"{stem}{lm}": HFClass(PAIR), f"{stem}Model": BASE_MODEL._replace(knobs=PAIR)}
    found |= {f"{stem}ForSequenceClassification": _by_end(labels)} if labels else {}
    found |= {f"{stem}ForQuestionAnswering": ANSWERS._replace(knobs=PAIR)} if answers else {}
    return found | ({f"{stem}ForCausalLM": HFClass(ALONE, names=_DEAF)} if alone else {})
