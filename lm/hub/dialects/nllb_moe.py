"""transformers' NllbMoe: M2M-100's fields and most of its names, and experts.

What is read is a model that drops no token when it is not trained, as the published one (a capacity of all tokens):
otherwise what becomes of a token depends on the other rows of its batch."""

from lm.core.errors import UserError
from lm.hub.dialects.m2m import POSITION
from lm.hub.tables.classes import BASE_MODEL
from lm.hub.tables.encoder_decoders import HEAD, encoder_decoder_fields, pair_names
from lm.hub.tables.format import Config, Custom, Fixed, HFClass, HFFormat, Knob, Knobs, Unused, activation, number
from lm.hub.tables.tensor_names import ModuleNames, TensorNames, attention_names, mlp_names, norm_names, tower_names

LAYER: ModuleNames = (
    *attention_names("self_attn.", o="out_proj"),
    *attention_names("cross_attention.", o="out_proj", part="cross"),
    ("cross_norm", "cross_attention_layer_norm"),
    *norm_names("self_attn_layer_norm", "ff_layer_norm"),
    *mlp_names("ffn.fc1", "ffn.fc2"),
    ("mlp/router", "ffn.router.classifier"),
    ("mlp/experts/up", "ffn.experts.expert_{expert}.fc1"),
    ("mlp/experts/down", "ffn.experts.expert_{expert}.fc2"),
)
FRACTION = "moe_eval_capacity_token_fraction"


def _tower(ours: str) -> TensorNames:
    return tower_names(ours, f"model.{ours}.", LAYER, layers="layers", token="embed_tokens", norm="layer_norm")


def _names(config: Config) -> TensorNames:
    return (*pair_names(config, "model.shared.weight", _tower("encoder"), _tower("decoder")), *HEAD[:1])


def _read_capacity(config: Config) -> Knobs:
    if (fraction := number(FRACTION, config.get(FRACTION, 1.0))) < 1:
        raise UserError(f"{FRACTION}={fraction} is not supported: only 1, where no token is dropped")
    return {}


MODEL_TYPES = {
    "nllb-moe": HFFormat(
        "nllb_moe",
        {"NllbMoeForConditionalGeneration": HFClass(), "NllbMoeModel": BASE_MODEL},
        encoder_decoder_fields(
            POSITION,
            activation("activation_function", "relu"),
            Knob("experts", "num_experts", 128),
            Knob("every", "encoder_sparse_step", 4),
            Knob("decoder_every", "decoder_sparse_step", 4),
            Knob("router_bias", "router_bias", False),
            Knob("masked", "moe_token_dropout", 0.2, float),
            Custom((FRACTION,), _read_capacity, lambda knobs: {FRACTION: 1.0}),
            Fixed("second_expert_policy", ("all",)),
            Fixed("router_dtype", ("float32",)),
            # Of what a capacity below all tokens would drop, and what is done of padding.
            Unused("expert_capacity", "normalize_router_prob_before_dropping", "batch_prioritized_routing"),
            Unused("router_ignore_padding_tokens", "max_position_embeddings"),
            Unused("router_z_loss_coef", "router_aux_loss_coef", "output_router_logits"),
            scaled=True,
            norm_first=True,
        ),
        _names,
        tokenizer="NllbTokenizer",
    )
}
