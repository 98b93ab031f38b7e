"""transformers' Glm4Moe. Behind the last layer files hold modules that predict further tokens, which its class does not
read either."""

from lm.hub.dialects.deepseek import BALANCES, balanced_fields, left_out
from lm.hub.tables.classes import generation_classes
from lm.hub.tables.decoders import ATTENTION, GATED, ROUTED, decoder_fields, decoder_names, expert_names
from lm.hub.tables.format import ANY_TOKENIZER, Config, HFFormat, Knob, Unused, flag, number
from lm.hub.tables.rope import Rope
from lm.hub.tables.tensor_names import TensorNames

FURTHER = ("num_nextn_predict_layers", "num_mtp_layers")


def _names(config: Config) -> TensorNames:
    name = next((name for name in FURTHER if config.get(name) is not None), None)
    further = int(number(name, config[name], above=-1, whole=True)) if name else 1
    return (
        *decoder_names(ATTENTION, (*GATED, *expert_names(shared="shared_experts"))),
        BALANCES,
        *left_out(config["num_hidden_layers"], further),
    )


MODEL_TYPES = {
    "glm4_moe": HFFormat(
        "glm4_moe",
        generation_classes("Glm4Moe", sequences=False, tokens=None),
        decoder_fields(
            ROUTED,
            Knob("kv_heads", "num_key_value_heads", 8),
            Knob("k", "num_experts_per_tok", 8),
            *balanced_fields(experts=128, shared=1, expert_ff=1408, first_dense=1, scale=1.0, normalize=True),
            Rope(fraction=0.5, longest=131072),
            Knob("qkv_bias", "attention_bias", False),
            flag("qk_norm", "use_qk_norm", False),
            Knob("eps", "rms_norm_eps", 1e-5),
            Unused(*FURTHER),
        ),
        _names,
        tokenizer=ANY_TOKENIZER,
    )
}
