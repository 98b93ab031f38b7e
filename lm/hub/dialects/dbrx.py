"""transformers' Dbrx, whose attention and experts have configs of their own, and in whose files each matrix of all
experts is one, expert below expert. The rotary base stands in the attention's config, where transformers 5 passes it
over: it takes that of the whole."""

from collections.abc import Mapping
from typing import Any

from lm.core.errors import UserError
from lm.hub.tables.classes import generation_classes
from lm.hub.tables.decoders import gpt_names
from lm.hub.tables.format import ACTIVATIONS, Config, Custom, Fixed, HFFormat, Knob, Knobs, Unused, count, size_fields
from lm.hub.tables.rope import LONGEST, NEW, THETA, Rope, mapping
from lm.hub.tables.tensor_names import Layout, fused_names, norm_names

ATTENTION, EXPERTS = "attn_config", "ffn_config"
ROPE = Rope()
BELOW, BELOW_LINEAR = Layout(merged=True), Layout(merged=True, transpose=True)
COUNTS = {"d_ff": ("ffn_hidden_size", 3584), "experts": ("moe_num_experts", 4), "k": ("moe_top_k", 1)}


def _read_attention(config: Config) -> Knobs:
    given = mapping(config, ATTENTION)
    kv = count(f"{ATTENTION}.kv_n_heads")(given.get("kv_n_heads", 1))
    whole = {**config, LONGEST: config.get("max_seq_len", 2048)}
    theta = given.get(THETA)
    if theta is not None and not config.get(NEW) and THETA not in config:
        whole[THETA] = theta
    knobs = ROPE.read(whole)
    if theta not in (None, knobs["theta"]):
        raise UserError(f"{ATTENTION}.{THETA}={theta!r} is not what {NEW} says, {knobs['theta']!r}: keep one of them")
    return knobs | {"kv_heads": kv, "clip": given.get("clip_qkv")}


def _write_attention(knobs: Knobs) -> dict[str, Any]:
    own = {"kv_n_heads": knobs["kv_heads"], "clip_qkv": knobs["clip"], THETA: knobs["theta"]}
    return {ATTENTION: own, **ROPE.write(knobs)}


def _read_experts(config: Config) -> Knobs:
    given = mapping(config, EXPERTS)
    named = given.get("ffn_act_fn") or {}
    name = named.get("name", "silu") if isinstance(named, Mapping) else named
    if name not in [*ACTIVATIONS]:
        raise UserError(f"{EXPERTS}.ffn_act_fn={named!r} is not supported: give a dict with the name of an activation")
    if given.get("uniform_expert_assignment"):
        raise UserError(f"{EXPERTS}.uniform_expert_assignment=True is not supported: experts are chosen by a router")
    counts = {knob: count(f"{EXPERTS}.{key}")(given.get(key, default)) for knob, (key, default) in COUNTS.items()}
    return counts | {"activation": ACTIVATIONS[name], "normalize": given.get("moe_normalize_expert_weights", 1.0)}


def _write_experts(knobs: Knobs) -> dict[str, Any]:
    name = next(theirs for theirs, ours in ACTIVATIONS.items() if ours == knobs["activation"])
    own = {key: knobs[knob] for knob, (key, _) in COUNTS.items()}
    return {EXPERTS: own | {"ffn_act_fn": {"name": name}, "moe_normalize_expert_weights": knobs["normalize"]}}


MODEL_TYPES = {
    "dbrx": HFFormat(
        "dbrx",
        generation_classes("Dbrx", sequences=False, tokens=None),
        (
            *size_fields("d_model", "n_layers", "n_heads"),
            Knob("vocab", "vocab_size", 32000),
            Custom((ATTENTION, *ROPE.keys), _read_attention, _write_attention),
            Custom((EXPERTS,), _read_experts, _write_experts),
            Fixed("tie_word_embeddings", (False,)),
            Unused("max_seq_len", "resid_pdrop", "emb_pdrop", "output_router_logits", "num_key_value_heads"),
        ),
        (
            *gpt_names(
                fused_names("norm_attn_norm.attn.Wqkv", "norm_attn_norm.attn.out_proj"),
                (("mlp/router", "ffn.router.layer"),),
                norms=norm_names("norm_attn_norm.norm_1", "norm_attn_norm.norm_2"),
                layers="blocks",
                norm="norm_f",
                buffers=(),
            ),
            *(
                (f"body/stack/{{layer}}/mlp/experts/{ours}/w", f"transformer.blocks.{{layer}}.ffn.experts.mlp.{x}", how)
                for ours, x, how in (("gate", "w1", BELOW_LINEAR), ("up", "v1", BELOW_LINEAR), ("down", "w2", BELOW))
            ),
        ),
        "transformer.",
        tokenizer="GPT2Tokenizer",
    )
}
