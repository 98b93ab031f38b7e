"""transformers' JetMoe."""

from lm.hub.tables.classes import generation_classes
from lm.hub.tables.decoders import ROUTED, decoder_fields, decoder_names
from lm.hub.tables.format import ANY_TOKENIZER, HFClass, HFFormat, Knob, Unused, activation
from lm.hub.tables.rope import Rope
from lm.hub.tables.tensor_names import SAME

MODEL_TYPES = {
    "jetmoe": HFFormat(
        "jetmoe",
        # Published files name the class of the code that they came with.
        generation_classes("JetMoe", tokens=None) | {"JetMoEForCausalLM": HFClass()},
        decoder_fields(
            ROUTED,
            Knob("heads", "num_key_value_heads", 16),
            Knob("head_dim", ("kv_channels", "head_dim"), 128),
            Knob("experts", ("num_local_experts", "num_experts"), 8),
            Knob("k", "num_experts_per_tok", 2),
            Rope(longest=4096),
            activation("activation_function", "silu"),
            Knob("tied", "tie_word_embeddings", True),
            Unused("num_attention_heads", "aux_loss_coef"),
        ),
        (
            *decoder_names(
                (
                    ("attention/router", "self_attention.experts.router.layer"),
                    ("attention/experts/q", "self_attention.experts.input_linear"),
                    ("attention/experts/o", "self_attention.experts.output_linear"),
                    (("attention/k", "attention/v"), "self_attention.kv_proj"),
                ),
                (
                    ("mlp/router", "mlp.router.layer"),
                    (("mlp/experts/gate", "mlp/experts/up"), "mlp.input_linear"),
                    ("mlp/experts/down", "mlp.output_linear"),
                ),
            ),
            ("body/stack/{layer}/attention/b", "model.layers.{layer}.self_attention.experts.bias", SAME),
            ("body/stack/{layer}/mlp/b", "model.layers.{layer}.mlp.bias", SAME),
        ),
        tokenizer=ANY_TOKENIZER,
    )
}
