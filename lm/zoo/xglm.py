"""XGLM (Lin et al. 2021, arXiv 2112.10668) and InCoder (Fried et al. 2022, 2204.05999): fairseq's pre-LayerNorm decoder
with biases, embeddings times sqrt(d), sinusoids whose first token stands behind the padding id, exact GELU, a tied
head."""

import functools
import math

from lm.core.param import Normal
from lm.model.attention import Attention
from lm.model.layers import LayerNorm
from lm.model.mlp import MLP
from lm.model.positions import Sinusoidal
from lm.model.transformer import LanguageModel
from lm.zoo.dialect import Dialect, Fixed, Knob, Unused, act, generators, layers_heads
from lm.zoo.family import Family
from lm.zoo.names import LAYER, SAME, TensorNames, rows, unused
from lm.zoo.parts import decoder, head_size, pre_norm

SIZES = {
    "564m": {"layers": 24, "d_model": 1024, "heads": 16},
    "1.7b": {"layers": 24, "d_model": 2048, "heads": 16},
    "2.9b": {"layers": 48, "d_model": 2048, "heads": 16},
    "4.5b": {"layers": 48, "d_model": 2048, "heads": 16, "d_ff": 16384},
    "7.5b": {"layers": 32, "d_model": 4096, "heads": 32},
}
INCODER = {
    "1b": {"layers": 24, "d_model": 2048, "heads": 32},
    "6b": {"layers": 32, "d_model": 4096, "heads": 32},
}


def xglm(
    *,
    layers: int,
    d_model: int,
    heads: int,
    d_ff: int | None = None,
    vocab: int = 256008,
    activation: str = "gelu",
    scaled: bool = True,
    tied: bool = True,
) -> LanguageModel:
    """An XGLM of any shape. `scaled`: embeddings are multiplied by sqrt(d_model). d_ff defaults to 4 d_model."""
    init, norm = Normal(0.02), LayerNorm(1e-5)
    attention = Attention(
        heads=heads,
        head_dim=head_size(d_model, heads),
        biases=("q", "k", "v", "o"),
        init=init,
        out_init=init,
    )
    block = pre_norm(attention, MLP(d_ff or 4 * d_model, activation, init=init, out_init=init), norm)
    return decoder(
        [block] * layers,
        d_model=d_model,
        vocab=vocab,
        norm=norm,
        tied=tied,
        position=Sinusoidal(layout="fairseq", offset=2),
        embed_scale=math.sqrt(d_model) if scaled else 1.0,
        init=init,
    )


FAMILIES = {
    "xglm": Family(xglm, SIZES, "arXiv 2112.10668"),
    "incoder": Family(functools.partial(xglm, vocab=50518), INCODER, "arXiv 2204.05999"),
}

# transformers' XGLMForCausalLM.
HF: TensorNames = (
    ("body/embed/token", "model.embed_tokens.weight", SAME),
    *rows(
        LAYER,
        "model.layers.{layer}.",
        ("attention/q", "self_attn.q_proj"),
        ("attention/k", "self_attn.k_proj"),
        ("attention/v", "self_attn.v_proj"),
        ("attention/o", "self_attn.out_proj"),
        ("attention_norm", "self_attn_layer_norm"),
        ("mlp/up", "fc1"),
        ("mlp/down", "fc2"),
        ("mlp_norm", "final_layer_norm"),
    ),
    *rows("body/stack/", "model.", ("norm", "layer_norm")),
    ("head/w", "lm_head.weight", SAME),
    *unused("model.embed_positions.weights"),  # computed
)
DIALECTS = {
    "xglm": Dialect(
        "xglm",
        generators("XGLM", sequences=False, tokens=None),
        (
            *layers_heads("d_model", "num_layers", "attention_heads", "ffn_dim"),
            Knob("vocab", "vocab_size", 256008),
            act("activation", "activation_function", "gelu"),
            Knob("scaled", "scale_embedding", True),
            Knob("tied", "tie_word_embeddings", True),
            Fixed("add_cross_attention", (False,)),
            Unused("max_position_embeddings"),  # a table's first length, which grows
            Unused("dropout", "attention_dropout", "activation_dropout", "layerdrop", "init_std"),
        ),
        HF,
    )
}
