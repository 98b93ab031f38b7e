"""transformers' BigBird: Bert's names, but for a classifier of its own."""

from lm.hub.tables.encoders import encoder_classes, encoder_fields, hidden_act_classifier, pretrained_names
from lm.hub.tables.format import Config, Fixed, HFClass, HFFormat, Knob, activation
from lm.hub.tables.tensor_names import TensorNames, ignored_modules

FULL, SPARSE = "original_full", "block_sparse"


def _classes() -> dict[str, HFClass]:
    """That of answers has a layer more and is left out."""
    found = encoder_classes("BigBird", "bert.", pooler="pooler")
    found["BigBirdForSequenceClassification"] = hidden_act_classifier("gelu_new")
    kinds = ("ForMaskedLM", "ForPreTraining", "Model", "ForSequenceClassification", "ForTokenClassification")
    return {f"BigBird{kind}": found[f"BigBird{kind}"] for kind in kinds}


def _names(config: Config) -> TensorNames:
    return (*pretrained_names("bert.")(config), *ignored_modules("bert.pooler"))


MODEL_TYPES = {
    "big_bird": HFFormat(
        "bigbird",
        _classes(),
        encoder_fields(
            Knob("vocab", "vocab_size", 50358),
            Knob("context", "max_position_embeddings", 4096),
            Knob(
                "sparse", "attention_type", SPARSE, {SPARSE: True, FULL: False}.__getitem__, [FULL, SPARSE].__getitem__
            ),
            Knob("block", "block_size", 64),
            Knob("random_blocks", "num_random_blocks", 3),
            Knob("bias", "use_bias", True),
            Knob("scaled", "rescale_embeddings", False),
            activation("hidden_act", "gelu_new"),
            Fixed("is_decoder", (False,)),
            without=("position_embedding_type",),
        ),
        _names,
        "bert.",
        tokenizer="BigBirdTokenizer",
    )
}
