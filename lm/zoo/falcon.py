"""Falcon (Almazrouei et al. 2023, arXiv 2311.16867) in its forms: 7B has multi-query attention beside the MLP, behind
one norm; 40B and 180B grouped queries and two norms; 11B one norm again; Falcon-RW attention with ALiBi before the
MLP."""

from lm.core.errors import UserError
from lm.core.param import Normal
from lm.model.attention import Attention
from lm.model.attention_bias import Alibi
from lm.model.layers import LayerNorm
from lm.model.mlp import MLP
from lm.model.rotary import Rotary, Scaling
from lm.model.transformer import LanguageModel
from lm.zoo.dialect import ANSWERS, Config, Custom, Dialect, Knob, Knobs, Unused, act, flag, generators, layers_heads
from lm.zoo.family import Family
from lm.zoo.names import LAYER, SAME, Layout, TensorNames, rows
from lm.zoo.parts import decoder, head_size, parallel, pre_norm
from lm.zoo.rope import Rope

SIZES = {
    "7b": {"layers": 32, "d_model": 4544, "heads": 71, "kv_heads": 1, "norms": 1},
    "40b": {"layers": 60, "d_model": 8192, "heads": 128, "kv_heads": 8},
    "180b": {"layers": 80, "d_model": 14848, "heads": 232, "kv_heads": 8},
}
NORMS = {0: "attention, then MLP", 1: "both behind one norm", 2: "both, each behind its own"}


def falcon(
    *,
    layers: int,
    d_model: int,
    heads: int,
    kv_heads: int | None = None,
    d_ff: int | None = None,
    vocab: int = 65024,
    norms: int = 2,
    alibi: bool = False,
    bias: bool = False,
    activation: str = "gelu",
    theta: float = 10000.0,
    scaling: Scaling | None = None,
    eps: float = 1e-5,
    tied: bool = True,
) -> LanguageModel:
    """A Falcon of any shape. `norms` of attention and MLP side by side: 1 or 2; 0 puts one behind the other. Positions
    are rotary or, with `alibi`, linear biases. d_ff defaults to 4 d_model."""
    if norms not in NORMS:
        raise UserError(f"model.norms={norms} must be one of {NORMS}")
    init = Normal(0.02)
    attention = Attention(
        heads=heads,
        head_dim=head_size(d_model, heads),
        kv_heads=kv_heads,
        rotary=None if alibi else Rotary(theta=theta, scaling=scaling),
        terms=(Alibi(scaled=True, rounded=True),) if alibi else (),
        biases=("q", "k", "v", "o") if bias else (),
        init=init,
        out_init=init,
    )
    mlp = MLP(d_ff or 4 * d_model, activation, bias=bias, init=init, out_init=init)
    norm = LayerNorm(eps)
    block = parallel(attention, mlp, norm, norms=norms) if norms else pre_norm(attention, mlp, norm)
    return decoder([block] * layers, d_model=d_model, vocab=vocab, norm=norm, tied=tied, init=init)


FAMILIES = {"falcon": Family(falcon, SIZES, "arXiv 2311.16867")}


def _layer(where: str) -> TensorNames:
    """Groups [q heads / kv heads | k | v]: [q|k|v] with one key head, [heads, 3, head_dim] with as many as heads."""
    return rows(
        LAYER + where,
        "transformer.h.{layer}.",
        (tuple(f"attention/{x}" for x in "qkv"), "self_attention.query_key_value", Layout(transpose=True, groups="kv")),
        ("attention/o", "self_attention.dense"),
        ("mlp/up", "mlp.dense_h_to_4h"),
        ("mlp/down", "mlp.dense_4h_to_h"),
    )


# transformers' FalconForCausalLM.
HF: TensorNames = (
    ("body/embed/token", "transformer.word_embeddings.weight", SAME),
    *_layer(""),
    *_layer("both/"),
    *rows(
        LAYER,
        "transformer.h.{layer}.",
        ("attention_norm", "input_layernorm"),
        ("mlp_norm", "post_attention_layernorm"),
        ("both_norm", "input_layernorm"),
        ("both/attention_norm", "ln_attn"),
        ("both/mlp_norm", "ln_mlp"),
    ),
    *rows("body/stack/", "transformer.", ("norm", "ln_f")),
    ("head/w", "lm_head.weight", SAME),
)
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


DIALECTS = {
    "falcon": Dialect(
        "falcon",
        generators("Falcon", tokens="classifier", answers=ANSWERS),
        (
            *layers_heads("hidden_size", "num_hidden_layers", "num_attention_heads"),
            Custom(FORM, _read, _write),
            Knob("d_ff", "ffn_hidden_size", None),
            Knob("vocab", "vocab_size", 65024),
            flag("alibi", "alibi", False),
            flag("bias", "bias", False),
            act("activation", "activation", "gelu"),
            Rope(),
            Knob("eps", "layer_norm_epsilon", 1e-5),
            Knob("tied", "tie_word_embeddings", True),
            Unused("hidden_dropout", "attention_dropout"),
        ),
        HF,
        "transformer.",
    )
}
