"""transformers' StableLm, which keeps the norms of each head's queries and keys apart."""

from lm.hub.tables.classes import generation_classes
from lm.hub.tables.decoders import GATED, NORMS, decoder_fields, decoder_names
from lm.hub.tables.format import ANY_TOKENIZER, HFFormat, Knob, Unused
from lm.hub.tables.rope import Rope
from lm.hub.tables.tensor_names import attention_names, side_by_side

PARTS = (
    *attention_names("self_attn."),
    ("attention/q_norm", "self_attn.q_layernorm.norms.{heads}"),
    ("attention/k_norm", "self_attn.k_layernorm.norms.{heads}"),
    *GATED,
)
MODEL_TYPES = {
    "stablelm": HFFormat(
        "stablelm",
        generation_classes("StableLm"),
        decoder_fields(
            Rope(fraction=0.25, longest=4096),
            Knob("qkv_bias", "use_qkv_bias", False),
            Knob("qk_norm", "qk_layernorm", False),
            Knob("side_by_side", "use_parallel_residual", False),
            Knob("eps", "layer_norm_eps", 1e-5),
            Unused("hidden_dropout"),
        ),
        decoder_names(PARTS, side_by_side(PARTS), (*NORMS, ("both_norm", "input_layernorm"))),
        tokenizer=ANY_TOKENIZER,
        tokenizer_before="GPTNeoXTokenizer",
    )
}
