"""GPT-NeoX-20B (Black et al. 2022, arXiv 2204.06745) and Pythia (Biderman et al. 2023, 2304.01373): attention and MLP
side by side, each behind a LayerNorm of its own, rotary positions on a quarter of each head, untied head."""

from lm.core.param import Normal
from lm.model.attention import Attention
from lm.model.layers import LayerNorm
from lm.model.mlp import MLP
from lm.model.rotary import Rotary, Scaling
from lm.model.transformer import LanguageModel
from lm.zoo.dialect import ANSWERS, Dialect, Knob, Unused, act, generators, layers_heads
from lm.zoo.family import Family
from lm.zoo.names import LAYER, SAME, Layout, TensorNames, rows, unused
from lm.zoo.parts import decoder, head_size, parallel, pre_norm
from lm.zoo.rope import Rope

SIZES = {"20b": {"layers": 44, "d_model": 6144, "heads": 64, "vocab": 50432}}
PYTHIA = {
    "70m": {"layers": 6, "d_model": 512, "heads": 8, "vocab": 50304},
    "160m": {"layers": 12, "d_model": 768, "heads": 12, "vocab": 50304},
    "410m": {"layers": 24, "d_model": 1024, "heads": 16, "vocab": 50304},
    "1b": {"layers": 16, "d_model": 2048, "heads": 8, "vocab": 50304},
    "1.4b": {"layers": 24, "d_model": 2048, "heads": 16, "vocab": 50304},
    "2.8b": {"layers": 32, "d_model": 2560, "heads": 32, "vocab": 50304},
    "6.9b": {"layers": 32, "d_model": 4096, "heads": 32, "vocab": 50432},
    "12b": {"layers": 36, "d_model": 5120, "heads": 40, "vocab": 50688},
}


def gpt_neox(
    *,
    layers: int,
    d_model: int,
    heads: int,
    d_ff: int | None = None,
    vocab: int = 50432,
    activation: str = "gelu",
    theta: float = 10000.0,
    fraction: float = 0.25,
    scaling: Scaling | None = None,
    side_by_side: bool = True,
    attention_bias: bool = True,
    eps: float = 1e-5,
    tied: bool = False,
) -> LanguageModel:
    """A GPT-NeoX of any shape; without `side_by_side` the MLP follows the attention. d_ff defaults to 4 d_model."""
    init = Normal(0.02)
    attention = Attention(
        heads=heads,
        head_dim=head_size(d_model, heads),
        rotary=Rotary(theta=theta, fraction=fraction, scaling=scaling),
        biases=("q", "k", "v", "o") if attention_bias else (),
        init=init,
        out_init=Normal(0.02, depth=2 * layers),
    )
    mlp = MLP(d_ff or 4 * d_model, activation, init=init, out_init=Normal(0.02, depth=2 * layers))
    norm = LayerNorm(eps)
    block = parallel(attention, mlp, norm, norms=2) if side_by_side else pre_norm(attention, mlp, norm)
    return decoder([block] * layers, d_model=d_model, vocab=vocab, norm=norm, tied=tied, init=init)


FAMILIES = {
    "gpt_neox": Family(gpt_neox, SIZES, "arXiv 2204.06745"),
    "pythia": Family(gpt_neox, PYTHIA, "arXiv 2304.01373"),
}

_FUSED = Layout(transpose=True, groups="heads")  # [heads, 3, head_dim]


def _layer(where: str) -> TensorNames:
    return rows(
        LAYER + where,
        "gpt_neox.layers.{layer}.",
        ("attention_norm", "input_layernorm"),
        (tuple(f"attention/{x}" for x in "qkv"), "attention.query_key_value", _FUSED),
        ("attention/o", "attention.dense"),
        ("mlp_norm", "post_attention_layernorm"),
        ("mlp/up", "mlp.dense_h_to_4h"),
        ("mlp/down", "mlp.dense_4h_to_h"),
    )


# transformers' GPTNeoXForCausalLM.
HF: TensorNames = (
    ("body/embed/token", "gpt_neox.embed_in.weight", SAME),
    *_layer("both/"),
    *_layer(""),
    *rows("body/stack/", "gpt_neox.", ("norm", "final_layer_norm")),
    ("head/w", "embed_out.weight", SAME),
    ("head/w", "lm_head.weight", SAME),
    *unused(
        "gpt_neox.layers.{layer}.attention.bias",
        "gpt_neox.layers.{layer}.attention.masked_bias",
        "gpt_neox.layers.{layer}.attention.rotary_emb.inv_freq",
    ),
)

DIALECTS = {
    "gpt_neox": Dialect(
        "gpt_neox",
        generators("GPTNeoX", tokens="classifier", answers=ANSWERS),
        (
            *layers_heads("hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size"),
            Knob("vocab", "vocab_size", 50432),
            act("activation", "hidden_act", "gelu"),
            Rope(fraction=0.25, theta_name="rotary_emb_base", fraction_name="rotary_pct"),
            Knob("side_by_side", "use_parallel_residual", True),
            Knob("attention_bias", "attention_bias", True),
            Knob("eps", "layer_norm_eps", 1e-5),
            Knob("tied", "tie_word_embeddings", False),
            Unused("attention_dropout", "hidden_dropout", "classifier_dropout"),
        ),
        HF,
        "gpt_neox.",
    )
}
