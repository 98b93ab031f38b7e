"""SantaCoder and StarCoder (Ben Allal et al. 2023, arXiv 2301.03988; Li et al. 2023, 2305.06161): GPT-2's layers with
multi-query attention. StarCoder 2 (Lozhkov et al. 2024, 2402.19173): grouped queries, rotary positions and a window."""

from lm.core.param import Normal
from lm.model.attention import Attention, Projections, Softmax
from lm.model.layers import LayerNorm
from lm.model.masks import Causal, Window
from lm.model.mlp import MLP
from lm.model.positions import Learned
from lm.model.rotary import Rotary, Scaling
from lm.model.transformer import LanguageModel
from lm.zoo.family import Family
from lm.zoo.parts import decoder, head_size, pre_norm

SIZES = {
    "santacoder": {"layers": 24, "d_model": 2048, "heads": 16, "vocab": 49280, "context": 2048},
    "15b": {"layers": 40, "d_model": 6144, "heads": 48},
}
SIZES_2 = {
    "3b": {"layers": 30, "d_model": 3072, "heads": 24, "kv_heads": 2, "d_ff": 12288, "theta": 999999.4420358813},
    "7b": {"layers": 32, "d_model": 4608, "heads": 36, "kv_heads": 4, "d_ff": 18432, "theta": 1000000.0},
    "15b": {"layers": 40, "d_model": 6144, "heads": 48, "kv_heads": 4, "d_ff": 24576, "theta": 100000.0},
}
BIASES = ("q", "k", "v", "o")


def starcoder(
    *,
    layers: int,
    d_model: int,
    heads: int,
    d_ff: int | None = None,
    multi_query: bool = True,
    vocab: int = 49152,
    context: int = 8192,
    activation: str = "gelu_tanh",
    scaled: bool = True,
    eps: float = 1e-5,
    tied: bool = True,
) -> LanguageModel:
    """A StarCoder of any shape. d_ff defaults to 4 d_model; scores are divided by sqrt(head_dim) if `scaled`."""
    init = Normal(0.02)
    attention = Attention(
        heads=heads,
        head_dim=head_size(d_model, heads),
        kv_heads=1 if multi_query else heads,
        projections=Projections(BIASES, init=init, out_init=Normal(0.02, depth=2 * layers)),
        softmax=Softmax(None if scaled else 1.0),
    )
    mlp = MLP(d_ff or 4 * d_model, activation, init=init, out_init=Normal(0.02, depth=2 * layers))
    block = pre_norm(attention, mlp, LayerNorm(eps))
    position = Learned(context, init=init)
    norm = LayerNorm(eps)
    return decoder([block] * layers, d_model=d_model, vocab=vocab, norm=norm, tied=tied, position=position, init=init)


def starcoder2(
    *,
    layers: int,
    d_model: int,
    heads: int,
    kv_heads: int | None = None,
    d_ff: int | None = None,
    vocab: int = 49152,
    activation: str = "gelu_tanh",
    theta: float = 10000.0,
    scaling: Scaling | None = None,
    window: int = 4096,
    bias: bool = True,
    eps: float = 1e-5,
    tied: bool = True,
) -> LanguageModel:
    """A StarCoder 2 of any shape; with `window` 0 all layers see everything. d_ff defaults to 4 d_model."""
    init = Normal(0.02)
    attention = Attention(
        heads=heads,
        head_dim=head_size(d_model, heads),
        kv_heads=kv_heads,
        mask=Window(window) if window else Causal(),
        rotary=Rotary(theta=theta, scaling=scaling),
        projections=Projections(BIASES if bias else (), init=init, out_init=init),
    )
    mlp = MLP(d_ff or 4 * d_model, activation, bias=bias, init=init, out_init=init)
    block = pre_norm(attention, mlp, LayerNorm(eps))
    return decoder([block] * layers, d_model=d_model, vocab=vocab, norm=LayerNorm(eps), tied=tied, init=init)


FAMILIES = {
    "starcoder": Family(starcoder, SIZES, "arXiv 2301.03988, 2305.06161"),
    "starcoder2": Family(starcoder2, SIZES_2, "arXiv 2402.19173"),
}
