"""transformers' MPNet: Roberta's classes, but for a decoder."""

from lm.hub.dialects import roberta
from lm.hub.tables.encoders import encoder_fields, encoder_names
from lm.hub.tables.format import Config, Fixed, HFFormat, Knob
from lm.hub.tables.tensor_names import SAME, TensorNames, attention_names, norm_names
from lm.zoo.mpnet import OFFSET

CLASSES = {
    name: known._replace(knobs={})
    for name, known in roberta.classes("MPNet", "mpnet.").items()
    if name != "MPNetForCausalLM"
}


def _names(config: Config) -> TensorNames:
    return (
        *encoder_names(
            "mpnet.",
            norm_names("attention.LayerNorm", "output.LayerNorm"),
            attention=attention_names("attention.attn.", *"qkvo"),
        ),
        ("body/stack/tables/relative_bias/w", "mpnet.encoder.relative_attention_bias.weight", SAME),
        *roberta.head_names(config, "mpnet."),
    )


MODEL_TYPES = {
    "mpnet": HFFormat(
        "mpnet",
        CLASSES,
        encoder_fields(
            Knob("context", "max_position_embeddings", 512, lambda many: many - OFFSET, lambda many: many + OFFSET),
            Fixed("relative_attention_num_buckets", (32,)),  # theirs counts 32 whatever the field says
            without=("type_vocab_size", "is_decoder", "add_cross_attention", "position_embedding_type"),
        ),
        _names,
        "mpnet.",
        tokenizer="MPNetTokenizer",
    )
}
