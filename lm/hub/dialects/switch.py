"""transformers' SwitchTransformers. Each expert takes the first expert_capacity of a row's tokens that are sent to it.
Theirs are sent as well where they pad the row, so that padding on the left may push others out; ours are not."""

from lm.hub.dialects.t5 import encoder_names, pair_names
from lm.hub.tables.classes import BASE_MODEL
from lm.hub.tables.format import (
    Config,
    Custom,
    Fixed,
    HFClass,
    HFFormat,
    Knob,
    Knobs,
    Unused,
    activation,
    count,
    size_fields,
)
from lm.hub.tables.tensor_names import ModuleNames, TensorNames, ignored

MLP: ModuleNames = (
    ("mlp/up", "mlp.wi"),
    ("mlp/down", "mlp.wo"),
    ("mlp/router", "mlp.router.classifier"),
    ("mlp/experts/up", "mlp.experts.expert_{expert}.wi"),
    ("mlp/experts/down", "mlp.experts.expert_{expert}.wo"),
)
TOWERS = {"every": ("encoder", "num_layers"), "decoder_every": ("decoder", "num_decoder_layers")}


def _read_period(config: Config) -> Knobs:
    """The period that is told, or that gives so many sparse layers."""
    found: Knobs = {}
    whole = count("num_layers")(config.get("num_layers"))
    for knob, (tower, depth) in TOWERS.items():
        layers = count(depth)(config[depth]) if config.get(depth) else whole
        sparse = config.get(f"num_sparse_{tower}_layers", 3)
        period = config.get(f"{tower}_sparse_step", layers // sparse if sparse else layers)
        found[knob] = count(f"{tower}_sparse_step")(period)
    return found


def _write_period(knobs: Knobs) -> dict[str, int]:
    found: dict[str, int] = {}
    for knob, (tower, _) in TOWERS.items():
        layers = knobs["layers"] if tower == "encoder" else knobs["decoder_layers"] or knobs["layers"]
        period = knobs[knob] or knobs["every"]
        found |= {f"num_sparse_{tower}_layers": layers // period, f"{tower}_sparse_step": period}
    return found


def _read_tables(config: Config) -> Knobs:
    """Where the head has a table of its own, transformers gives one each to encoder and decoder too."""
    tied = config.get("tie_word_embeddings", True)
    return {"tied": tied, "shared": tied}


def _names(config: Config) -> TensorNames:
    names = (*pair_names(mlp=MLP), *encoder_names(mlp=MLP))
    if config.get("tie_word_embeddings", True):
        return names
    return (*(entry for entry in names if entry[1] != TABLE), *ignored(TABLE))


TABLE = "shared.weight"
PAIR, ENCODER = {"encoder_only": False}, {"encoder_only": True}
MODEL_TYPES = {
    "switch_transformers": HFFormat(
        "switch",
        {
            "SwitchTransformersForConditionalGeneration": HFClass(PAIR),
            "SwitchTransformersModel": HFClass(PAIR, BASE_MODEL.head),
            "SwitchTransformersEncoderModel": HFClass(ENCODER),
        },
        (
            *size_fields("d_model", "num_layers", "num_heads", "d_ff"),
            Knob("decoder_layers", "num_decoder_layers", None),
            Knob("head_dim", "d_kv", 64),
            Knob("vocab", "vocab_size", 32128),
            Knob("experts", "num_experts", 8),
            Knob("slots", "expert_capacity", 64),
            Knob("router_bias", "router_bias", False),
            Knob("jitter", "router_jitter_noise", 0.01, float),
            Knob("buckets", "relative_attention_num_buckets", 32),
            Knob("max_distance", "relative_attention_max_distance", 128),
            Knob("eps", "layer_norm_epsilon", 1e-6),
            activation("dense_act_fn", "relu"),
            Custom(("tie_word_embeddings",), _read_tables, lambda knobs: {"tie_word_embeddings": knobs["tied"]}),
            Custom(
                tuple(
                    f"{name}" for t in ("encoder", "decoder") for name in (f"num_sparse_{t}_layers", f"{t}_sparse_step")
                ),
                _read_period,
                _write_period,
            ),
            Fixed("is_gated_act", (False,)),
            Fixed("router_dtype", ("float32",)),
            Fixed("router_type", ("tokens_masked",)),
            Fixed("is_decoder", (False,)),
            Unused("router_ignore_padding_tokens", "router_z_loss_coef", "router_aux_loss_coef", "add_router_probs"),
            Unused(
                "dropout_rate", "initializer_factor", "feed_forward_proj", "add_cross_attention", "output_router_logits"
            ),
        ),
        _names,
        "",
        tokenizer="T5Tokenizer",
    )
}
