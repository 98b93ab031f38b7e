"""transformers' Falcon, whose five fields of form are read together. Its fused projection is groups of [query heads of
a key head | k | v]: [q|k|v] with one key head, [heads, 3, head_dim] with as many as heads."""

from lm.core.errors import UserError
from lm.hub.tables.classes import ANSWERS, generation_classes
from lm.hub.tables.decoders import NORMS, decoder_names
from lm.hub.tables.format import Config, Custom, HFFormat, Knob, Knobs, Unused, activation, flag, size_fields
from lm.hub.tables.rope import Rope
from lm.hub.tables.tensor_names import BY_KV_HEAD, fused_names, mlp_names, side_by_side

FORM = ("new_decoder_architecture", "num_ln_in_parallel_attn", "parallel_attn", "multi_query", "num_kv_heads")


def _read(config: Config) -> Knobs:
    new, norms = config.get("new_decoder_architecture", False), config.get("num_ln_in_parallel_attn")
    side_by_side, kv_heads = config.get("parallel_attn", True), config.get("num_kv_heads")
    if norms is None:
        norms = 2 if new else 1
    if (new and not side_by_side) or (not new and side_by_side and norms != 1) or norms not in (1, 2):
        form = ", ".join(f"{name}={config.get(name)!r}" for name in FORM[:3])
        raise UserError(f"{form} do not go together in this model type")
    multi_query = not new and config.get("multi_query", True)
    return {"norms": norms if side_by_side else 0, "kv_heads": 1 if multi_query else kv_heads}


def _write(knobs: Knobs) -> dict:
    heads, kv_heads, norms = knobs["heads"], knobs["kv_heads"] or knobs["heads"], knobs["norms"]
    new = norms == 2 or (norms == 1 and kv_heads not in (1, heads))
    return {
        "new_decoder_architecture": new,
        "num_ln_in_parallel_attn": norms if new else None,
        "parallel_attn": norms > 0,
        "multi_query": not new and kv_heads == 1,
        "num_kv_heads": kv_heads,
    }


PARTS = (
    *fused_names("self_attention.query_key_value", "self_attention.dense", BY_KV_HEAD),
    *mlp_names("mlp.dense_h_to_4h", "mlp.dense_4h_to_h"),
)
BESIDE = (("both_norm", "input_layernorm"), ("both/attention_norm", "ln_attn"), ("both/mlp_norm", "ln_mlp"))
MODEL_TYPES = {
    "falcon": HFFormat(
        "falcon",
        generation_classes("Falcon", tokens="classifier", answers=ANSWERS),
        (
            *size_fields("hidden_size", "num_hidden_layers", "num_attention_heads"),
            Custom(FORM, _read, _write),
            Knob("d_ff", "ffn_hidden_size", None),
            Knob("vocab", "vocab_size", 65024),
            flag("alibi", "alibi", False),
            flag("bias", "bias", False),
            activation("activation", "gelu"),
            Rope(),
            Knob("eps", "layer_norm_epsilon", 1e-5),
            Knob("tied", "tie_word_embeddings", True),
            Unused("hidden_dropout", "attention_dropout"),
        ),
        decoder_names(
            PARTS,
            side_by_side(PARTS),
            (*NORMS, *BESIDE),
            prefix="transformer.",
            layers="h",
            token="word_embeddings",
            norm="ln_f",
        ),
        "transformer.",
    )
}
