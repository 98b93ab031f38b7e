"""transformers' Mpt, and MPT in the files that came with code of their own."""

from lm.core.errors import UserError
from lm.hub.tables.classes import ANSWERS, generation_classes
from lm.hub.tables.decoders import gpt_names
from lm.hub.tables.format import Config, Custom, Fixed, HFClass, HFFormat, Knob, Knobs, Unused, size_fields
from lm.hub.tables.tensor_names import fused_names, mlp_names, norm_names

# What transformers takes for granted whatever attn_config says: anything else would be another model.
GRANTED = {"alibi": True, "alibi_bias_max": 8, "qk_ln": False, "prefix_lm": False, "attn_type": "multihead_attention"}


def _read(config: Config) -> Knobs:
    given = config.get("attn_config") or {}
    for name, value in GRANTED.items():
        if given.get(name, value) != value:
            raise UserError(f"attn_config.{name}={given[name]!r} is not supported, only {value!r}")
    return {"scale": given.get("softmax_scale"), "clip": given.get("clip_qkv")}


def _write(knobs: Knobs) -> dict:
    return {"attn_config": {**GRANTED, "softmax_scale": knobs["scale"], "clip_qkv": knobs["clip"]}}


MODEL_TYPES = {
    "mpt": HFFormat(
        "mpt",
        # Published files name the class of the code that they came with.
        generation_classes("Mpt", tokens="classifier", answers=ANSWERS) | {"MPTForCausalLM": HFClass()},
        (
            *size_fields("d_model", "n_layers", "n_heads"),
            Fixed("expansion_ratio", (4,)),
            Knob("vocab", "vocab_size", 50368),
            Custom(("attn_config",), _read, _write),
            Knob("eps", "layer_norm_epsilon", 1e-5),
            Knob("tied", "tie_word_embeddings", True),
            Fixed("no_bias", (True,)),
            Fixed("logit_scale", (None,)),
            Unused("max_seq_len", "resid_pdrop", "emb_pdrop", "learned_pos_emb", "init_device", "embedding_fraction"),
            Unused("norm_type", "verbose", "use_cache"),
        ),
        gpt_names(
            fused_names("attn.Wqkv", "attn.out_proj"),
            mlp_names("ffn.up_proj", "ffn.down_proj"),
            norms=norm_names("norm_1", "norm_2"),
            layers="blocks",
            norm="norm_f",
            buffers=(),
        ),
        "transformer.",
        tokenizer="GPTNeoXTokenizer",
    )
}
