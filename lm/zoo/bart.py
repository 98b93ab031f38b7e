"""BART (Lewis et al. 2020, arXiv 1910.13461), mBART (Liu et al. 2020, 2001.08210; mBART-50: Tang et al. 2020,
2008.00401) and PLBART (Ahmad et al. 2021, 2103.06333): Transformers with GELU, biases everywhere, learned positions
that begin at row 2, normed embeddings. mBART norms before each sub-layer and at the end of each tower."""

import functools
from types import MappingProxyType

from lm.core.errors import UserError
from lm.model.heads import SequenceClassifier
from lm.model.layers import LayerNorm
from lm.model.positions import Learned
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
    count,
    flag,
)
from lm.zoo.family import Family
from lm.zoo.names import OPTIONAL, SAME, TensorNames, rows, unused
from lm.zoo.transformer import transformer

OFFSET = 2
SIZES = {
    "base": {"layers": 6, "d_model": 768, "heads": 12},
    "large": {"layers": 12, "d_model": 1024, "heads": 16},
}
MBART = {
    "25": {"layers": 12, "d_model": 1024, "heads": 16, "vocab": 250027},
    "50": {"layers": 12, "d_model": 1024, "heads": 16, "vocab": 250054},
}
PLBART = {
    "base": {"layers": 6, "d_model": 768, "heads": 12},
    "large": {"layers": 12, "d_model": 1024, "heads": 16},
}

# What transformers has in common that were written for it by the same hands, here and in the files beside.
variant = functools.partial(
    transformer, activation="gelu", norm=LayerNorm(1e-5), attention_bias=True, logit_offset=True, scaled=False
)
bart = functools.partial(variant, vocab=50265, position=Learned(1024 + OFFSET, OFFSET), embed_norm=True)

FAMILIES = {
    "bart": Family(bart, SIZES, "arXiv 1910.13461"),
    "mbart": Family(functools.partial(bart, norm_first=True, scaled=True), MBART, "arXiv 2001.08210, 2008.00401"),
    "plbart": Family(functools.partial(bart, vocab=50005, scaled=True), PLBART, "arXiv 2103.06333"),
}


def shares(config: Config) -> bool:
    """Whether encoder and decoder read one table. With an untied head, transformers keeps theirs apart too."""
    shared = config.get("share_encoder_decoder_embeddings", True)
    if not isinstance(shared, bool):
        raise UserError(f"share_encoder_decoder_embeddings={shared!r} is not understood: give true or false")
    return config.get("tie_word_embeddings", True) and shared


def names(config: Config) -> TensorNames:
    """What transformers' BartForConditionalGeneration and its kin call tensors. Where encoder and decoder have tables
    of their own, files may hold a third one that nothing reads."""
    table = "model.shared.weight"
    return (
        *((("decoder/embed/token", table, SAME),) if shares(config) else unused(table)),
        *tower_names("encoder", "model.encoder."),
        *tower_names("decoder", "model.decoder."),
        *tower_names("body", "model.decoder."),
        *((("body/embed/token", table, SAME),) if shares(config) else ()),  # of a decoder alone in a file of both
        ("head/w", "lm_head.weight", SAME),
        ("head/offset", "final_logits_bias", OPTIONAL),
    )


_OWN = (("q", "q_proj"), ("k", "k_proj"), ("v", "v_proj"), ("o", "out_proj"))
OWN = tuple((f"attention/{x}", f"self_attn.{name}") for x, name in _OWN)


def tower_names(ours: str, theirs: str, own: tuple[tuple[str, str], ...] = OWN) -> TensorNames:
    """What the tensors of an encoder or decoder are called; `own`: those of what attends to its own inputs."""
    return (
        *rows(f"{ours}/embed/", theirs, ("position", "embed_positions", SAME)),
        (f"{ours}/embed/token", f"{theirs}embed_tokens.weight", SAME),
        *(
            entry
            for place in ("norm", "token_norm")
            for entry in rows(f"{ours}/embed/", theirs, (place, "layernorm_embedding"))
        ),
        *rows(
            f"{ours}/stack/{{layer}}/",
            f"{theirs}layers.{{layer}}.",
            *own,
            ("attention_norm", "self_attn_layer_norm"),
            ("cross/q", "encoder_attn.q_proj"),
            ("cross/k", "encoder_attn.k_proj"),
            ("cross/v", "encoder_attn.v_proj"),
            ("cross/o", "encoder_attn.out_proj"),
            ("cross_norm", "encoder_attn_layer_norm"),
            ("mlp/up", "fc1"),
            ("mlp/down", "fc2"),
            ("mlp_norm", "final_layer_norm"),
        ),
        *rows(f"{ours}/stack/", theirs, ("norm", "layer_norm")),
    )


class Decoders(Knob):
    """A size of the decoder's, which is the encoder's where it is not given."""

    def write(self, knobs: Knobs) -> dict:
        own = knobs[self.ours]
        return {self.names[0]: knobs[self.ours.removeprefix("decoder_")] if own is None else own}


def positions(offset: int) -> Knob:
    """A trained table of so many positions, the first of which is row `offset`."""
    return Knob(
        "position",
        "max_position_embeddings",
        to=lambda longest: Learned(count("max_position_embeddings")(longest) + offset, offset),
        back=lambda position: position.longest,
    )


SHAPE: tuple[Field, ...] = (
    Knob("d_model", ("d_model", "hidden_size")),
    Knob("layers", ("encoder_layers", "num_hidden_layers")),
    Knob("heads", ("encoder_attention_heads", "num_attention_heads")),
    Knob("d_ff", "encoder_ffn_dim"),
    Decoders("decoder_layers", "decoder_layers"),
    Decoders("decoder_heads", "decoder_attention_heads"),
    Decoders("decoder_d_ff", "decoder_ffn_dim"),
    Knob("vocab", "vocab_size"),
    Custom(
        ("tie_word_embeddings",),
        lambda config: {"tied": config.get("tie_word_embeddings", True), "shared": shares(config)},
        lambda knobs: {"tie_word_embeddings": knobs["tied"]},
    ),
    Unused("dropout", "attention_dropout", "activation_dropout", "classifier_dropout", "classif_dropout"),
    Unused("encoder_layerdrop", "decoder_layerdrop", "init_std"),
)


def fields(
    activation: str = "gelu", scaled: bool = False, norm_first: bool = False, embed_norm: bool = False
) -> tuple[Field, ...]:
    """Fields that all these model types have, but for positions. Whether and where one norms is settled by the model
    type; older files, which tell it besides, may not contradict that."""
    return (
        *SHAPE,
        act("activation", "activation_function", activation),
        flag("scaled", "scale_embedding", scaled),
        Fixed("normalize_before", (norm_first,)),
        Fixed("normalize_embedding", (embed_norm,)),
        Fixed("add_final_layer_norm", (norm_first,)),
        Fixed("add_bias_logits", (False,)),
    )


PAIR = MappingProxyType({"decoder_only": False})
ALONE = MappingProxyType({"decoder_only": True, "logit_offset": False})
# A decoder alone keeps what would read the encoder.
_DEAF = unused(
    *(
        f"model.decoder.layers.{{layer}}.encoder_attn{part}.{leaf}"
        for part in (".q_proj", ".k_proj", ".v_proj", ".out_proj", "_layer_norm")
        for leaf in ("weight", "bias")
    )
)


def _by_end(default_labels: int) -> Class:
    """A classifier by the decoder's state where the text that both read, the decoder one token later, ends."""

    def head(config: Config) -> SequenceClassifier:
        many = len(config["id2label"]) if config.get("id2label") else config.get("num_labels", default_labels)
        return SequenceClassifier(
            many, at="end", end=config.get("eos_token_id", 2), row="encoder/tokens", activation="tanh"
        )

    return Class(PAIR, head, rows("head/", "classification_head.", ("dense", "dense"), ("out", "out_proj")))


def classes(
    stem: str,
    lm: str = "ForConditionalGeneration",
    labels: int | None = None,
    answers: bool = False,
    alone: bool = True,
) -> dict[str, Class]:
    """The classes of a model type: language model, base model, where there are such a classifier of rows, with so many
    labels unless told otherwise, and of answers' ends, and the decoder alone."""
    found = {f"{stem}{lm}": Class(PAIR), f"{stem}Model": BASE._replace(knobs=PAIR)}
    found |= {f"{stem}ForSequenceClassification": _by_end(labels)} if labels else {}
    found |= {f"{stem}ForQuestionAnswering": ANSWERS._replace(knobs=PAIR)} if answers else {}
    return found | ({f"{stem}ForCausalLM": Class(ALONE, names=_DEAF)} if alone else {})


DIALECTS = {
    "bart": Dialect(
        "bart",
        classes("Bart", labels=3, answers=True),
        (*fields(embed_norm=True), positions(OFFSET)),
        names,
    ),
    "mbart": Dialect(
        "mbart",
        classes("MBart", labels=2, answers=True),
        (*fields(norm_first=True, embed_norm=True), positions(OFFSET)),
        names,
    ),
    "plbart": Dialect(
        "plbart",
        classes("PLBart", labels=2),
        (*fields(scaled=True, embed_norm=True), positions(OFFSET)),
        names,
    ),
}
