"""Persimmon-8B (Elsen et al. 2023, Adept): pre-LayerNorm decoder with biases, rotary positions on half of each head,
LayerNorms of queries and keys, squared ReLU and an untied head."""

from lm.core.param import Normal
from lm.model.attention import Attention
from lm.model.layers import LayerNorm
from lm.model.mlp import MLP
from lm.model.rotary import Rotary, Scaling
from lm.model.transformer import LanguageModel
from lm.zoo.dialect import Dialect, Knob, Unused, act, generators, layers_heads
from lm.zoo.family import Family
from lm.zoo.names import LAYER, QKV, SAME, Layout, TensorNames, rows, unused
from lm.zoo.parts import decoder, head_size, pre_norm
from lm.zoo.rope import Rope

SIZES = {"8b": {"layers": 36, "d_model": 4096, "heads": 64, "d_ff": 16384, "theta": 25000.0}}


def persimmon(
    *,
    layers: int,
    d_model: int,
    heads: int,
    d_ff: int,
    vocab: int = 262144,
    activation: str = "relu2",
    theta: float = 10000.0,
    fraction: float = 0.5,
    scaling: Scaling | None = None,
    qk_norm: bool = True,
    eps: float = 1e-5,
    tied: bool = False,
) -> LanguageModel:
    """A Persimmon of any shape."""
    init, norm = Normal(0.02), LayerNorm(eps)
    attention = Attention(
        heads=heads,
        head_dim=head_size(d_model, heads),
        rotary=Rotary(theta=theta, fraction=fraction, scaling=scaling),
        biases=("q", "k", "v", "o"),
        q_norm=norm if qk_norm else None,
        k_norm=norm if qk_norm else None,
        init=init,
        out_init=init,
    )
    block = pre_norm(attention, MLP(d_ff, activation, init=init, out_init=init), norm)
    return decoder([block] * layers, d_model=d_model, vocab=vocab, norm=norm, tied=tied, init=init)


FAMILIES = {"persimmon": Family(persimmon, SIZES, "Adept 2023")}

# transformers' PersimmonForCausalLM.
HF: TensorNames = (
    ("body/embed/token", "model.embed_tokens.weight", SAME),
    *rows(
        LAYER,
        "model.layers.{layer}.",
        ("attention_norm", "input_layernorm"),
        (QKV, "self_attn.query_key_value", Layout(transpose=True, groups="heads")),  # [heads, 3, head_dim]
        ("attention/o", "self_attn.dense"),
        ("attention/q_norm", "self_attn.q_layernorm"),
        ("attention/k_norm", "self_attn.k_layernorm"),
        ("mlp_norm", "post_attention_layernorm"),
        ("mlp/up", "mlp.dense_h_to_4h"),
        ("mlp/down", "mlp.dense_4h_to_h"),
    ),
    *rows("body/stack/", "model.", ("norm", "final_layernorm")),
    ("head/w", "lm_head.weight", SAME),
    *unused("model.layers.{layer}.self_attn.rotary_emb.inv_freq"),
)
DIALECTS = {
    "persimmon": Dialect(
        "persimmon",
        generators("Persimmon"),
        (
            *layers_heads("hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size"),
            Knob("vocab", "vocab_size", 262144),
            act("activation", "hidden_act", "relu2"),
            Rope(fraction=0.5, longest=16384),
            Knob("qk_norm", "qk_layernorm", True),
            Knob("eps", "layer_norm_eps", 1e-5),
            Knob("tied", "tie_word_embeddings", False),
            Unused("hidden_dropout", "attention_dropout"),
        ),
        HF,
    )
}
