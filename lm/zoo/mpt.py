"""MPT (MosaicML 2023): pre-LayerNorm decoder without any bias, with ALiBi, exact GELU and a tied head."""

from lm.core.errors import UserError
from lm.core.param import Normal
from lm.model.attention import Attention
from lm.model.attention_bias import Alibi
from lm.model.layers import LayerNorm
from lm.model.mlp import MLP
from lm.model.transformer import LanguageModel
from lm.zoo.dialect import ANSWERS, Class, Config, Custom, Dialect, Fixed, Knob, Knobs, Unused, generators
from lm.zoo.family import Family
from lm.zoo.names import LAYER, QKV, SAME, TensorNames, rows
from lm.zoo.parts import decoder, head_size, pre_norm

SIZES = {
    "7b": {"layers": 32, "d_model": 4096, "heads": 32},
    "30b": {"layers": 48, "d_model": 7168, "heads": 64},
}


def mpt(
    *,
    layers: int,
    d_model: int,
    heads: int,
    vocab: int = 50432,
    scale: float | None = None,
    clip: float | None = None,
    eps: float = 1e-5,
    tied: bool = True,
) -> LanguageModel:
    """An MPT of any shape. Scores are multiplied by `scale`, by default head_dim ** -0.5."""
    init, out_init = Normal(0.02), Normal(0.02, depth=2 * layers)
    attention = Attention(
        heads=heads,
        head_dim=head_size(d_model, heads),
        terms=(Alibi(),),
        scale=scale,
        clip=clip,
        init=init,
        out_init=out_init,
    )
    norm = LayerNorm(eps, bias=False)
    block = pre_norm(attention, MLP(4 * d_model, "gelu", bias=False, init=init, out_init=out_init), norm)
    return decoder([block] * layers, d_model=d_model, vocab=vocab, norm=norm, tied=tied, init=init)


FAMILIES = {"mpt": Family(mpt, SIZES, "MosaicML 2023")}

# transformers' MptForCausalLM.
HF: TensorNames = (
    ("body/embed/token", "transformer.wte.weight", SAME),
    *rows(
        LAYER,
        "transformer.blocks.{layer}.",
        ("attention_norm", "norm_1"),
        (QKV, "attn.Wqkv"),
        ("attention/o", "attn.out_proj"),
        ("mlp_norm", "norm_2"),
        ("mlp/up", "ffn.up_proj"),
        ("mlp/down", "ffn.down_proj"),
    ),
    *rows("body/stack/", "transformer.", ("norm", "norm_f")),
    ("head/w", "lm_head.weight", SAME),
)
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


DIALECTS = {
    "mpt": Dialect(
        "mpt",
        # Published files name the class of the code that they came with.
        generators("Mpt", tokens="classifier", answers=ANSWERS) | {"MPTForCausalLM": Class()},
        (
            Knob("d_model", ("d_model", "hidden_size")),
            Knob("layers", ("n_layers", "num_hidden_layers")),
            Knob("heads", ("n_heads", "num_attention_heads")),
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
        HF,
        "transformer.",
    )
}
