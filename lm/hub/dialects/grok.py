"""Grok-1's tensors under the names that its port to torch gave them, which files are shared under. xAI's own files,
pickles of 8-bit tensors, are not read."""

import math
from typing import Any

from lm.hub.tables.classes import BASE_MODEL
from lm.hub.tables.decoders import ROUTED, decoder_fields, decoder_names, expert_names
from lm.hub.tables.format import Config, Custom, HFClass, HFFormat, Knob, Knobs, activation, number
from lm.hub.tables.rope import Rope
from lm.hub.tables.tensor_names import LAYER, SAME, TensorNames, attention_names

EMBED, SCORES = "embedding_multiplier_scale", "attn_output_multiplier"
NORMS = {"attention_norm": ("pre_attn_norm", "post_attn_norm"), "mlp_norm": ("pre_moe_norm", "post_moe_norm")}
_SCALES: TensorNames = (
    *(
        (f"{LAYER}{norm}/{at}/w", f"model.layers.{{layer}}.{name}.scale", SAME)
        for norm, names in NORMS.items()
        for at, name in zip(("before", "after"), names, strict=True)
    ),
    ("body/stack/norm/w", "model.norm.scale", SAME),
)


def _read_scales(config: Config) -> Knobs:
    return {"embed_scale": number(EMBED, config.get(EMBED)), "score_scale": number(SCORES, config.get(SCORES))}


def _write_scales(knobs: Knobs) -> dict[str, Any]:
    embed, score, d = knobs["embed_scale"], knobs["score_scale"], knobs["d_model"]
    return {
        EMBED: math.sqrt(d) if embed is None else embed,
        SCORES: (d // knobs["heads"]) ** -0.5 if score is None else score,
    }


MODEL_TYPES = {
    "grok-1": HFFormat(
        "grok",
        {"Grok1ModelForCausalLM": HFClass(), "Grok1Model": BASE_MODEL},
        decoder_fields(
            ROUTED,
            Knob("experts", ("num_experts", "num_local_experts"), 8),
            Knob("k", "num_experts_per_tok", 2),
            activation("hidden_act", "gelu_pytorch_tanh"),  # the port's config has none
            Rope(longest=8192),
            Custom((EMBED, SCORES), _read_scales, _write_scales),
            Knob("cap", "max_attn_value", 30.0, lambda cap: float(cap or 0)),
            Knob("output_scale", "output_multiplier_scale"),
            Knob("eps", "rms_norm_eps", 1e-5),
            Knob("tied", "tie_word_embeddings", True),
            without=("head_dim",),
        ),
        (
            *decoder_names(
                attention_names("attn."),
                expert_names("moe_block.", parts=("linear", "linear_v", "linear_1")),
                norms=(),
                norm=None,
            ),
            *_SCALES,
        ),
    )
}
