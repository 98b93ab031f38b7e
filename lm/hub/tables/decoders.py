"""What decoders have in common in config.json and in the names of their tensors: LLaMA's words, which most model types
use since, and GPT-2's."""

import functools
from typing import Any

from lm.hub.tables.format import Config, Custom, Field, Knob, Knobs, Unused, activation, overridden, size_fields
from lm.hub.tables.rope import Rope
from lm.hub.tables.tensor_names import (
    SAME,
    ModuleNames,
    TensorNames,
    attention_names,
    ignored,
    mlp_names,
    norm_names,
    sandwich_names,
    tower_names,
)
from lm.zoo.parts import layers_of

_DECODER: tuple[Field, ...] = (
    *size_fields("hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size"),
    Knob("kv_heads", "num_key_value_heads", None),
    Knob("head_dim", "head_dim", None),
    Knob("vocab", "vocab_size"),
    Rope(),
    activation("hidden_act", "silu"),
    Knob("eps", "rms_norm_eps", 1e-6),
    Knob("tied", "tie_word_embeddings", False),
    Unused("attention_dropout", "pretraining_tp", "sep_token_id"),
)
_GPT: tuple[Field, ...] = (
    *size_fields("n_embd", "n_layer", "n_head"),
    Knob("d_ff", "n_inner", None),
    Knob("vocab", "vocab_size", 50257),
    Knob("context", "n_positions", 1024),
    activation("activation_function", "gelu_new"),
    Knob("eps", "layer_norm_epsilon", 1e-5),
    Knob("tied", "tie_word_embeddings", True),
    Unused("resid_pdrop", "embd_pdrop", "attn_pdrop"),
)

# Of routers: losses and noise of training, which has knobs of its own.
ROUTED = Unused("output_router_logits", "router_aux_loss_coef", "router_jitter_noise")


def decoder_fields(*own: Field, without: tuple[str, ...] = ()) -> tuple[Field, ...]:
    """LLaMA's fields, with a model type's own in place of those that say the same, and without those of some keys."""
    return overridden(_DECODER, own, without)


def gpt_fields(*own: Field, without: tuple[str, ...] = ()) -> tuple[Field, ...]:
    """The same of GPT-2's."""
    return overridden(_GPT, own, without)


PERIODS = ("sliding_window_pattern", "_sliding_window_pattern")


def layer_kinds(pattern: int, periods: tuple[str, ...] = PERIODS, *, first: bool = False) -> Custom:
    """The knobs `layer_types` and `pattern`: which layers have a window. In older files the last (or the `first`) layer
    of each period has none; `periods` are the keys of its length, which is `pattern` where nothing is said."""

    def read(config: Config) -> Knobs:
        given = (config.get(name) for name in periods)
        period = next((value for value in given if value is not None), pattern)
        kinds = config.get("layer_types")
        return {
            "layer_types": layers_of((), config["num_hidden_layers"], period, first=first)
            if kinds is None
            else tuple(kinds)
        }

    def write(knobs: Knobs) -> dict[str, Any]:
        return {"layer_types": list(layers_of(knobs["layer_types"], knobs["layers"], knobs["pattern"], first=first))}

    return Custom(("layer_types", *periods), read, write)


ATTENTION: ModuleNames = (
    *attention_names("self_attn."),
    ("attention/q_norm", "self_attn.q_norm"),
    ("attention/k_norm", "self_attn.k_norm"),
)
GATED: ModuleNames = mlp_names("mlp.up_proj", "mlp.down_proj", "mlp.gate_proj")
FUSED_GATE: ModuleNames = ((("mlp/gate", "mlp/up"), "mlp.gate_up_proj"), ("mlp/down", "mlp.down_proj"))


def expert_names(
    theirs: str = "mlp.",
    *,
    router: str = "gate",
    parts: tuple[str, str, str] = ("gate_proj", "up_proj", "down_proj"),
    shared: str | None = None,
    part: str = "mlp",
) -> ModuleNames:
    """A router, and gated experts that have their matrices, called as in `parts`, each for itself; `shared`: the expert
    of all tokens, which may have a gate of its own; `part`: the sub-layer."""
    linear = tuple(zip(("gate", "up", "down"), parts, strict=True))
    always = (
        *((f"{part}/shared/{ours}", f"{theirs}{shared}.{name}") for ours, name in linear),
        (f"{part}/shared_gate", f"{theirs}{shared}_gate"),
    )
    return (
        (f"{part}/router", f"{theirs}{router}"),
        *((f"{part}/experts/{ours}", f"{theirs}experts.{{expert}}.{name}") for ours, name in linear),
        *(always if shared else ()),
    )


NORMS: ModuleNames = norm_names("input_layernorm", "post_attention_layernorm")
# Where there are norms after sub-layers, what others call post_attention_layernorm is the one after the attention.
SANDWICH: ModuleNames = sandwich_names(
    ("input_layernorm", "post_attention_layernorm"), ("pre_feedforward_layernorm", "post_feedforward_layernorm")
)


def decoder_names(
    attention: ModuleNames = ATTENTION,
    mlp: ModuleNames = GATED,
    norms: ModuleNames = NORMS,
    *,
    prefix: str = "model.",
    layers: str = "layers",
    token: str = "embed_tokens",
    position: str | None = None,
    embed_norm: str | None = None,
    norm: str | None = "norm",
    head: str = "lm_head",
    buffers: tuple[str, ...] = (),
) -> TensorNames:
    """The tensors of a decoder: LLaMA's but for what is given. `prefix` is that of all but the head,
    `buffers` what files carry in each layer and we drop."""
    tower = tower_names(
        "body",
        prefix,
        norms,
        attention,
        mlp,
        layers=layers,
        token=token,
        position=position,
        embed_norm=embed_norm,
        norm=norm,
    )
    dropped = ignored(*(f"{prefix}{layers}.{{layer}}.{name}" for name in buffers))
    return (*tower, ("head/w", f"{head}.weight", SAME), ("head/b", f"{head}.bias", SAME), *dropped)


# The same of GPT-2's kin.
gpt_names = functools.partial(
    decoder_names,
    norms=norm_names("ln_1", "ln_2"),
    prefix="transformer.",
    layers="h",
    token="wte",
    position="wpe",
    norm="ln_f",
    buffers=("attn.bias",),
)
