"""Arctic's files, in the words of the code that they came with."""

from lm.hub.tables.classes import generation_classes
from lm.hub.tables.decoders import ATTENTION, NORMS, ROUTED, decoder_fields, decoder_names, expert_names
from lm.hub.tables.format import Fixed, HFFormat, Knob, Unused
from lm.hub.tables.rope import Rope

_PARTS = ("w1", "w3", "w2")  # gate, up, down
# In a layer with experts beside it the MLP is called residual, and the norm after the attention is theirs, before it.
_DENSE = tuple(zip(("gate", "up", "down"), _PARTS, strict=True))
_MLP = (
    *((f"mlp/{ours}", f"block_sparse_moe.mlp.{name}") for ours, name in _DENSE),
    *((f"dense/{ours}", f"residual_mlp.{name}") for ours, name in _DENSE),
    *expert_names("block_sparse_moe.", parts=_PARTS),
    *expert_names("block_sparse_moe.", parts=_PARTS, part="branch"),
)
_NORMS = (*NORMS, ("dense_norm", "residual_layernorm"), ("before_branch", "post_attention_layernorm"))

MODEL_TYPES = {
    "arctic": HFFormat(
        "arctic",
        generation_classes("Arctic", tokens=None),
        decoder_fields(
            ROUTED,
            Knob("vocab", "vocab_size", 32000),
            Knob("experts", "num_local_experts", 8),
            Knob("k", "num_experts_per_tok", 1),
            Knob("every", "moe_layer_frequency", 2),
            Knob("beside", "parallel_attn_mlp_res", False),
            Knob("window", "sliding_window", None, lambda w: w or 0, lambda w: w or None),
            Rope(theta=1000000.0, longest=4096),
            Knob("eps", "rms_norm_eps", 1e-5),
            Fixed("quantization", (None,)),
            # Dropped tokens are of DeepSpeed's path, in training; `use_residual` is not read.
            Unused("moe_train_capacity_factor", "moe_eval_capacity_factor", "moe_min_capacity", "moe_token_dropping"),
            Unused("enable_expert_tensor_parallelism", "use_residual", "max_sequence_length", "enc_index"),
            without=("head_dim",),
        ),
        decoder_names(ATTENTION, _MLP, _NORMS),
    )
}
