"""transformers' RoFormer: Bert's names. Sines and cosines, which files hold, are computed here."""

from lm.core.errors import UserError
from lm.hub.tables.classes import BASE_MODEL
from lm.hub.tables.encoders import encoder_classes, encoder_fields, hidden_act_classifier, pretrained_names
from lm.hub.tables.format import SUMMARY, Config, HFClass, HFFormat, Knob, Unused
from lm.hub.tables.tensor_names import TensorNames, entries, ignored
from lm.model.heads import SequenceClassifier


def _names(config: Config) -> TensorNames:
    return (
        *pretrained_names("roformer.")(config),
        *entries("body/embed/", "roformer.", ("project", "embeddings_project")),
        *ignored("roformer.encoder.embed_positions.weight"),
    )


def _choice(config: Config) -> SequenceClassifier:
    """A row's score as one of several, by its last token: transformers' default, and what published configs say."""
    for name, usual in {"summary_type": "last", "summary_use_proj": False, "summary_activation": None}.items():
        if config.get(name, usual) != usual:
            raise UserError(f"{name}={config[name]!r} is not supported, only {usual!r}")
    return SequenceClassifier(1, at="last")


def _classes() -> dict[str, HFClass]:
    known = encoder_classes("RoFormer", "roformer.")
    masked = known["RoFormerForMaskedLM"]._replace(knobs={})
    return {
        "RoFormerModel": BASE_MODEL,
        "RoFormerForMaskedLM": masked,
        "RoFormerForCausalLM": masked,
        "RoFormerForSequenceClassification": hidden_act_classifier("gelu"),
        "RoFormerForMultipleChoice": HFClass(head=_choice, names=entries("head/", "", ("out", "classifier"))),
        **{name: known[name] for name in ("RoFormerForTokenClassification", "RoFormerForQuestionAnswering")},
    }


MODEL_TYPES = {
    "roformer": HFFormat(
        "roformer",
        _classes(),
        encoder_fields(
            Knob("embed_width", "embedding_size", None),
            Knob("values", "rotary_value", False),
            Unused("max_position_embeddings", "summary_last_dropout", *SUMMARY),
            without=("position_embedding_type",),
        ),
        _names,
        "roformer.",
    )
}
