"""transformers' Electra: discriminator and generator are classes of one model type."""

from lm.core.errors import UserError
from lm.hub.tables.classes import ANSWERS, BASE_MODEL, token_classifier
from lm.hub.tables.encoders import classifier, encoder_fields, encoder_names, lm_names, transform_names
from lm.hub.tables.format import SUMMARY, Config, HFClass, HFFormat, Knob, Unused
from lm.hub.tables.tensor_names import TensorNames, entries, ignored_modules
from lm.model.heads import SequenceClassifier
from lm.zoo.electra import MLM

TRANSFORM = ("generator_predictions.dense", "generator_predictions.LayerNorm")
SCORES = ("discriminator_predictions.dense", "discriminator_predictions.dense_prediction")


def _names(config: Config) -> TensorNames:
    return (
        *encoder_names("electra."),
        *entries("body/embed/", "electra.", ("project", "embeddings_project")),
        *ignored_modules(*TRANSFORM, *SCORES),
        *lm_names(config, "generator_lm_head"),
    )


def _choice(config: Config) -> SequenceClassifier:
    """A row's score as one of several; only what all published configs say of the dense layer is read."""
    usual = {"summary_type": "first", "summary_use_proj": True, "summary_activation": "gelu"}
    for name, value in usual.items():
        if config.get(name, value) != value:
            raise UserError(f"{name}={config[name]!r} is not supported, only {value!r}")
    return SequenceClassifier(1, activation="gelu")


MASKED = HFClass(MLM, names=transform_names("head/", *TRANSFORM))
MODEL_TYPES = {
    "electra": HFFormat(
        "electra",
        {
            "ElectraModel": BASE_MODEL,
            "ElectraForPreTraining": HFClass(
                {"pretraining": ("rtd",)}, names=entries("head/", "", ("dense", SCORES[0]), ("out", SCORES[1]))
            ),
            "ElectraForMaskedLM": MASKED,
            "ElectraForCausalLM": MASKED,
            "ElectraForSequenceClassification": classifier("gelu"),
            "ElectraForMultipleChoice": classifier("gelu", "sequence_summary.summary", "classifier")._replace(
                head=_choice
            ),
            "ElectraForTokenClassification": token_classifier("classifier"),
            "ElectraForQuestionAnswering": ANSWERS,
        },
        encoder_fields(Knob("embed_width", "embedding_size", 128), Unused("summary_last_dropout", *SUMMARY)),
        _names,
        "electra.",
        tokenizer="BertTokenizer",
    )
}
