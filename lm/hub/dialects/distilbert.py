"""transformers' DistilBert."""

from lm.hub.tables.classes import ANSWERS, BASE_MODEL, token_classifier
from lm.hub.tables.encoders import classifier, encoder_names, lm_names, transform_names
from lm.hub.tables.format import Config, HFClass, HFFormat, Knob, Unused, activation, size_fields
from lm.hub.tables.tensor_names import (
    TensorNames,
    attention_names,
    ignored_modules,
    mlp_names,
    norm_names,
)
from lm.model.heads import SequenceClassifier

ROWS = classifier("relu", "pre_classifier", "classifier")
CLASSES = {
    "DistilBertModel": BASE_MODEL,
    "DistilBertForMaskedLM": HFClass(
        {"pretraining": ("mlm",)}, names=transform_names("head/", "vocab_transform", "vocab_layer_norm")
    ),
    "DistilBertForSequenceClassification": ROWS,
    "DistilBertForMultipleChoice": ROWS._replace(head=lambda config: SequenceClassifier(1, activation="relu")),
    "DistilBertForTokenClassification": token_classifier("classifier"),
    "DistilBertForQuestionAnswering": ANSWERS,
}


def _names(config: Config) -> TensorNames:
    return (
        *encoder_names(
            "distilbert.",
            norm_names("sa_layer_norm", "output_layer_norm"),
            attention=attention_names("attention.", "q_lin", "k_lin", "v_lin", "out_lin"),
            mlp=mlp_names("ffn.lin1", "ffn.lin2"),
            layers="transformer.layer",
        ),
        *ignored_modules("vocab_transform", "vocab_layer_norm"),
        *lm_names(config, "vocab_projector"),
    )


MODEL_TYPES = {
    "distilbert": HFFormat(
        "distilbert",
        CLASSES,
        (
            *size_fields("dim", "n_layers", "n_heads", "hidden_dim"),
            Knob("vocab", "vocab_size"),
            Knob("context", "max_position_embeddings", 512),
            activation("activation", "gelu"),
            Knob("tied", "tie_word_embeddings", True),
            Unused("dropout", "attention_dropout", "qa_dropout", "seq_classif_dropout"),
            Unused("sinusoidal_pos_embds"),  # how their table of positions begins; files hold it
        ),
        _names,
        "distilbert.",
        tokenizer="BertTokenizer",
    )
}
