"""LLaMA 1, 2 and 3 to 3.3 (Touvron et al. 2023, arXiv 2302.13971 and 2307.09288; Llama team 2024, 2407.21783).

Pre-RMSNorm decoder with rotary positions, SwiGLU, no biases and an untied head; grouped-query attention in the larger
LLaMA 2 models and all of LLaMA 3, whose rotary base is 500000; 3.1 stretches the low frequencies by 8, the small and
tied 3.2 by 32."""

import functools

from lm.core.param import Normal
from lm.model.attention import Attention, Projections
from lm.model.layers import RMSNorm
from lm.model.mlp import GatedMLP
from lm.model.rotary import FrequencyScaling, Rotary, Scaling
from lm.model.transformer import LanguageModel
from lm.zoo.family import Family, Sizes
from lm.zoo.parts import decoder, eight_thirds, head_size, pre_norm

_1 = {"vocab": 32000, "eps": 1e-6}
_2 = {"vocab": 32000, "eps": 1e-5}
_3 = {"vocab": 128256, "eps": 1e-5, "theta": 500000.0, "kv_heads": 8}
_31 = {**_3, "scaling": FrequencyScaling(factor=8.0)}
_32 = {**_3, "scaling": FrequencyScaling(factor=32.0), "tied": True}
_7B = {"layers": 32, "d_model": 4096, "heads": 32, "d_ff": 11008}
_13B = {"layers": 40, "d_model": 5120, "heads": 40, "d_ff": 13824}
_8B = {"layers": 32, "d_model": 4096, "heads": 32, "d_ff": 14336}
_70B = {"layers": 80, "d_model": 8192, "heads": 64, "d_ff": 28672}

SIZES: Sizes = {
    "1-7b": {**_7B, **_1},
    "1-13b": {**_13B, **_1},
    "1-33b": {"layers": 60, "d_model": 6656, "heads": 52, "d_ff": 17920, **_1},
    "1-65b": {"layers": 80, "d_model": 8192, "heads": 64, "d_ff": 22016, **_1},
    "2-7b": {**_7B, **_2},
    "2-13b": {**_13B, **_2},
    "2-34b": {"layers": 48, "d_model": 8192, "heads": 64, "kv_heads": 8, "d_ff": 22016, **_2},
    "2-70b": {**_70B, "kv_heads": 8, **_2},
    "3-8b": {**_8B, **_3},
    "3-70b": {**_70B, **_3},
    "3.1-8b": {**_8B, **_31},
    "3.1-70b": {**_70B, **_31},
    "3.1-405b": {"layers": 126, "d_model": 16384, "heads": 128, "d_ff": 53248, **_31},
    "3.2-1b": {"layers": 16, "d_model": 2048, "heads": 32, "d_ff": 8192, **_32},
    "3.2-3b": {"layers": 28, "d_model": 3072, "heads": 24, "d_ff": 8192, **_32},
    "3.3-70b": {**_70B, **_31},
}


def llama(
    *,
    layers: int,
    d_model: int,
    heads: int,
    kv_heads: int | None = None,
    head_dim: int | None = None,
    d_ff: int | None = None,
    vocab: int = 32000,
    activation: str = "silu",
    theta: float = 10000.0,
    scaling: Scaling | None = None,
    eps: float = 1e-5,
    attention_bias: bool = False,
    mlp_bias: bool = False,
    tied: bool = False,
    std: float = 0.02,
) -> LanguageModel:
    """A LLaMA of any shape; `SIZES` has the published ones. d_ff defaults to 8/3 d_model, rounded up to 256."""
    init, out_init = Normal(std), Normal(std, depth=2 * layers)
    attention = Attention(
        heads=heads,
        head_dim=head_dim or head_size(d_model, heads),
        kv_heads=kv_heads,
        rotary=Rotary(theta=theta, scaling=scaling),
        projections=Projections(("q", "k", "v", "o") if attention_bias else (), init=init, out_init=out_init),
    )
    mlp = GatedMLP(d_ff or eight_thirds(d_model), activation, bias=mlp_bias, init=init, out_init=out_init)
    block = pre_norm(attention, mlp, RMSNorm(eps))
    return decoder([block] * layers, d_model=d_model, vocab=vocab, norm=RMSNorm(eps), tied=tied, init=init)


# Bi et al. 2024, arXiv 2401.02954
DEEPSEEK: Sizes = {
    "7b": {"layers": 30, "d_model": 4096, "heads": 32, "d_ff": 11008},
    "67b": {"layers": 95, "d_model": 8192, "heads": 64, "kv_heads": 8, "d_ff": 22016},
}
FAMILIES = {
    "llama": Family(llama, SIZES, "arXiv 2302.13971, 2307.09288, 2407.21783"),
    "deepseek": Family(functools.partial(llama, vocab=102400, eps=1e-6), DEEPSEEK, "arXiv 2401.02954"),
}
