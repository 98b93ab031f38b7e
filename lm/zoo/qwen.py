"""Qwen 1 and 1.5 (Bai et al. 2023, arXiv 2309.16609), 2 and 2.5 (2407.10671, 2412.15115) and 3 (2505.09388): LLaMA's
layers with biases of queries, keys and values; Qwen 3 has norms of queries and keys instead. Later layers may have a
window."""

import functools

from lm.core.param import Normal
from lm.model.attention import Attention, Projections, QKNorm
from lm.model.layers import RMSNorm
from lm.model.masks import Causal, Window
from lm.model.mlp import GatedMLP
from lm.model.rotary import Rotary, Scaling
from lm.model.transformer import LanguageModel
from lm.zoo.family import Family, Sizes
from lm.zoo.parts import LOCAL, decoder, head_size, layers_of, pre_norm

_A, _B = {"vocab": 151936}, {"vocab": 152064}
_1 = {"theta": 10000.0}
SIZES_1: Sizes = {
    "1-1.8b": {"layers": 24, "d_model": 2048, "heads": 16, "d_ff": 5504, **_A, **_1},
    "1-7b": {"layers": 32, "d_model": 4096, "heads": 32, "d_ff": 11008, **_A, **_1},
    "1-14b": {"layers": 40, "d_model": 5120, "heads": 40, "d_ff": 13696, **_B, **_1},
    "1-72b": {"layers": 80, "d_model": 8192, "heads": 64, "d_ff": 24576, **_B},
    "1.5-0.5b": {"layers": 24, "d_model": 1024, "heads": 16, "d_ff": 2816, **_A, "tied": True},
    "1.5-1.8b": {"layers": 24, "d_model": 2048, "heads": 16, "d_ff": 5504, **_A},
    "1.5-4b": {"layers": 40, "d_model": 2560, "heads": 20, "d_ff": 6912, **_A},
    "1.5-7b": {"layers": 32, "d_model": 4096, "heads": 32, "d_ff": 11008, **_A},
    "1.5-14b": {"layers": 40, "d_model": 5120, "heads": 40, "d_ff": 13696, **_B},
    "1.5-32b": {"layers": 64, "d_model": 5120, "heads": 40, "kv_heads": 8, "d_ff": 27392, **_B},
    "1.5-72b": {"layers": 80, "d_model": 8192, "heads": 64, "d_ff": 24576, **_B},
    "1.5-110b": {"layers": 80, "d_model": 8192, "heads": 64, "kv_heads": 8, "d_ff": 49152, **_B},
}
SIZES_2: Sizes = {
    "0.5b": {"layers": 24, "d_model": 896, "heads": 14, "kv_heads": 2, "d_ff": 4864, **_A, "tied": True},
    "1.5b": {"layers": 28, "d_model": 1536, "heads": 12, "kv_heads": 2, "d_ff": 8960, **_A, "tied": True},
    "2.5-3b": {"layers": 36, "d_model": 2048, "heads": 16, "kv_heads": 2, "d_ff": 11008, **_A, "tied": True},
    "7b": {"layers": 28, "d_model": 3584, "heads": 28, "kv_heads": 4, "d_ff": 18944, **_B},
    "2.5-14b": {"layers": 48, "d_model": 5120, "heads": 40, "kv_heads": 8, "d_ff": 13824, **_B},
    "2.5-32b": {"layers": 64, "d_model": 5120, "heads": 40, "kv_heads": 8, "d_ff": 27648, **_B},
    "72b": {"layers": 80, "d_model": 8192, "heads": 64, "kv_heads": 8, "d_ff": 29568, **_B},
}
_3 = {"kv_heads": 8, "head_dim": 128, **_A}
SIZES_3: Sizes = {
    "0.6b": {"layers": 28, "d_model": 1024, "heads": 16, "d_ff": 3072, **_3, "tied": True},
    "1.7b": {"layers": 28, "d_model": 2048, "heads": 16, "d_ff": 6144, **_3, "tied": True},
    "4b": {"layers": 36, "d_model": 2560, "heads": 32, "d_ff": 9728, **_3, "tied": True},
    "8b": {"layers": 36, "d_model": 4096, "heads": 32, "d_ff": 12288, **_3},
    "14b": {"layers": 40, "d_model": 5120, "heads": 40, "d_ff": 17408, **_3},
    "32b": {"layers": 64, "d_model": 5120, "heads": 64, "d_ff": 25600, **_3},
}


def qwen(
    *,
    layers: int,
    d_model: int,
    heads: int,
    d_ff: int,
    kv_heads: int | None = None,
    head_dim: int | None = None,
    vocab: int = 151936,
    biases: tuple[str, ...] = ("q", "k", "v"),
    qk_norm: bool = False,
    layer_types: tuple[str, ...] = (),
    window: int | None = None,
    activation: str = "silu",
    theta: float = 1000000.0,
    scaling: Scaling | None = None,
    eps: float = 1e-6,
    tied: bool = False,
) -> LanguageModel:
    """A Qwen of any shape; layers that `layer_types` calls local see the last `window` tokens."""
    init, norm = Normal(0.02), RMSNorm(eps)
    mlp = GatedMLP(d_ff, activation, init=init, out_init=init)

    def attention(kind: str) -> Attention:
        return Attention(
            heads=heads,
            head_dim=head_dim or head_size(d_model, heads),
            kv_heads=kv_heads,
            mask=Window(window) if window and kind == LOCAL else Causal(),
            rotary=Rotary(theta=theta, scaling=scaling),
            projections=Projections(biases, init=init, out_init=init),
            qk_norm=QKNorm(norm, norm) if qk_norm else None,
        )

    blocks = [pre_norm(attention(kind), mlp, norm) for kind in layers_of(layer_types, layers)]
    return decoder(blocks, d_model=d_model, vocab=vocab, norm=norm, tied=tied, init=init)


FAMILIES = {
    "qwen": Family(qwen, SIZES_1, "arXiv 2309.16609"),
    "qwen2": Family(qwen, SIZES_2, "arXiv 2407.10671, 2412.15115"),
    "qwen3": Family(functools.partial(qwen, biases=(), qk_norm=True), SIZES_3, "arXiv 2505.09388"),
}
