"""transformers' Gemma, Gemma2 and Gemma3Text (within Gemma3, which sees images as well)."""

from types import MappingProxyType
from typing import Any

from lm.core.errors import UserError
from lm.hub.tables.classes import BASE_MODEL, SEQUENCE, generation_classes
from lm.hub.tables.decoders import SANDWICH, decoder_fields, decoder_names, layer_kinds
from lm.hub.tables.format import (
    Config,
    Custom,
    Field,
    Fixed,
    HFClass,
    HFFormat,
    Knob,
    Knobs,
    Unused,
    activation,
    count,
    number,
)
from lm.hub.tables.rope import Rope, RopeByLayer
from lm.zoo.parts import GLOBAL


def _cap(knob: str, hf_key: str, default: float | None) -> Knob:
    return Knob(knob, hf_key, default, lambda cap: float(cap or 0), lambda cap: cap or None)


ROPES = RopeByLayer(
    Rope(theta=1000000.0, longest=131072),
    Rope(theta=10000.0, longest=131072, theta_key="rope_local_base_freq"),
    scaled=(GLOBAL,),
)
# Gemma 1's configs say `gelu` in hidden_act and mean the tanh form; hidden_activation, where there is one, wins.
_ACT = {"gelu": "gelu_tanh", "gelu_pytorch_tanh": "gelu_tanh", "gelu_new": "gelu_tanh", "silu": "silu", "relu": "relu"}


def _read_act(config: Config) -> Knobs:
    key = "hidden_activation" if config.get("hidden_activation") else "hidden_act"
    name = config.get(key) or "gelu_pytorch_tanh"
    return activation(key, "gelu_pytorch_tanh", _ACT).read({key: name})


def _write_act(knobs: Knobs) -> dict:
    name = {"gelu_tanh": "gelu_pytorch_tanh"}.get(knobs["activation"], knobs["activation"])
    return {"hidden_act": name, "hidden_activation": name}


BOTH_WAYS, WINDOW = "use_bidirectional_attention", "sliding_window"


def _read_window(config: Config) -> Knobs:
    """Where attention goes both ways, the file's window is that of both sides."""
    both, window = config.get(BOTH_WAYS), count(WINDOW)(config.get(WINDOW, 4096))
    if both not in (None, True, False) or isinstance(both, (int, float)) is not isinstance(both, bool):
        raise UserError(f"{BOTH_WAYS}={both!r} is not understood: give true or false")
    return {"window": window // 2 + 1 if both else window, "bidirectional": bool(both)}


def _write_window(knobs: Knobs) -> dict:
    both, window = knobs["bidirectional"], knobs["window"]
    return {BOTH_WAYS: both, WINDOW: 2 * (window - 1) if both else window}


def _scalar(value: Any) -> float:
    return number("query_pre_attn_scalar", value, above=0)


CAUSAL = Fixed(BOTH_WAYS, (None, False))
SHARED: tuple[Field, ...] = (
    Knob("head_dim", "head_dim", 256),
    Knob("attention_bias", "attention_bias", False),
    Knob("tied", "tie_word_embeddings", True),
)
LATER: tuple[Field, ...] = (
    *SHARED,
    activation("hidden_activation", "gelu_pytorch_tanh"),
    Knob("scalar", "query_pre_attn_scalar", 256, _scalar, lambda s: int(s) if s == int(s) else s),
)

# What text_config leaves out in the files of models that see images as well: the model type's own defaults.
TEXT = {
    "hidden_size": 2304,
    "intermediate_size": 9216,
    "num_hidden_layers": 26,
    "num_attention_heads": 8,
    "num_key_value_heads": 4,
    "vocab_size": 262208,
}
MODEL_TYPES = {
    "gemma": HFFormat(
        "gemma",
        generation_classes("Gemma"),
        decoder_fields(
            *SHARED, CAUSAL, Rope(longest=8192), Custom(("hidden_act", "hidden_activation"), _read_act, _write_act)
        ),
        decoder_names(),
        tokenizer="GemmaTokenizer",
    ),
    "gemma2": HFFormat(
        "gemma2",
        generation_classes("Gemma2"),
        decoder_fields(
            *LATER,
            CAUSAL,
            Knob("window", WINDOW, 4096),
            Rope(longest=8192),
            layer_kinds(2),
            _cap("cap", "attn_logit_softcapping", 50.0),
            _cap("final_cap", "final_logit_softcapping", 30.0),
        ),
        decoder_names(norms=SANDWICH),
        tokenizer="GemmaTokenizer",
    ),
    "gemma3_text": HFFormat(
        "gemma3",
        {
            "Gemma3ForCausalLM": HFClass(),
            "Gemma3TextModel": BASE_MODEL,
            "Gemma3TextForSequenceClassification": SEQUENCE,
        },
        decoder_fields(
            *LATER,
            Custom((BOTH_WAYS, WINDOW), _read_window, _write_window),
            ROPES,
            layer_kinds(6),
            Unused("attn_logit_softcapping"),  # Gemma 2's: read by nothing there
            _cap("final_cap", "final_logit_softcapping", None),
        ),
        decoder_names(norms=SANDWICH),
        within=MappingProxyType({"gemma3": TEXT}),
        tokenizer="GemmaTokenizer",
    ),
}
