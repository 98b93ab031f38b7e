"""transformers' Ernie4_5."""

from lm.hub.tables.classes import generation_classes
from lm.hub.tables.decoders import decoder_fields, decoder_names
from lm.hub.tables.format import ANY_TOKENIZER, HFClass, HFFormat, Knob, flag
from lm.hub.tables.rope import Rope

MODEL_TYPES = {
    "ernie4_5": HFFormat(
        "ernie4_5",
        # Published files name the class of the code that they came with.
        generation_classes("Ernie4_5", sequences=False, tokens=None) | {"Ernie4_5_ForCausalLM": HFClass()},
        decoder_fields(
            Knob("kv_heads", "num_key_value_heads", 2),
            Knob("head_dim", "head_dim", 128),
            Rope(theta=500000.0, longest=131072),
            flag("bias", "use_bias", False),
            Knob("eps", "rms_norm_eps", 1e-5),
            Knob("tied", "tie_word_embeddings", True),
        ),
        decoder_names(),
        tokenizer=ANY_TOKENIZER,
        tokenizer_always=True,
    )
}
