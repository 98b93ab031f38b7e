"""Gemma 1 (Gemma team 2024, arXiv 2403.08295), 2 (2408.00118) and 3 (2503.19786): RMS norms with gains 1 + w,
embeddings times sqrt(d), GeGLU, heads wider than d / heads, a tied head. Gemma 2 norms on both sides of each sub-
layer, caps scores and logits and alternates windows with full attention; Gemma 3 has norms of queries and keys
instead of caps, and five layers with a window, and a rotary base of their own, to one without."""

import functools
import math

from lm.core.param import Normal
from lm.model.attention import Attention, Projections, QKNorm, Softmax
from lm.model.block import Block
from lm.model.heads import LMHead
from lm.model.layers import RMSNorm
from lm.model.masks import Bidirectional, Causal, Window
from lm.model.mlp import GatedMLP
from lm.model.residual import PreNorm, Sandwich
from lm.model.rotary import LinearScaling, Rotary, Scaling
from lm.model.transformer import LanguageModel
from lm.zoo.family import Family, Sizes
from lm.zoo.parts import LOCAL, decoder, layers_of, sequential

SIZES_1 = {
    "2b": {"layers": 18, "d_model": 2048, "heads": 8, "kv_heads": 1, "d_ff": 16384},
    "7b": {"layers": 28, "d_model": 3072, "heads": 16, "kv_heads": 16, "d_ff": 24576},
}
SIZES_2: Sizes = {
    "2b": {"layers": 26, "d_model": 2304, "heads": 8, "kv_heads": 4, "d_ff": 9216},
    "9b": {"layers": 42, "d_model": 3584, "heads": 16, "kv_heads": 8, "d_ff": 14336},
    "27b": {
        "layers": 46,
        "d_model": 4608,
        "heads": 32,
        "kv_heads": 16,
        "head_dim": 128,
        "d_ff": 36864,
        "scalar": 144.0,
    },
}
_3 = {"vocab": 262208, "window": 1024, "scaling": LinearScaling(8.0)}
SIZES_3: Sizes = {
    "270m": {"layers": 18, "d_model": 640, "heads": 4, "kv_heads": 1, "d_ff": 2048, "vocab": 262144, "window": 512},
    "1b": {"layers": 26, "d_model": 1152, "heads": 4, "kv_heads": 1, "d_ff": 6912, "vocab": 262144, "window": 512},
    "4b": {"layers": 34, "d_model": 2560, "heads": 8, "kv_heads": 4, "d_ff": 10240, **_3},
    "12b": {"layers": 48, "d_model": 3840, "heads": 16, "kv_heads": 8, "d_ff": 15360, **_3},
    "27b": {
        "layers": 62,
        "d_model": 5376,
        "heads": 32,
        "kv_heads": 16,
        "head_dim": 128,
        "d_ff": 21504,
        "scalar": 168.0,
        **_3,
    },
}


def gemma(
    *,
    layers: int,
    d_model: int,
    heads: int,
    d_ff: int,
    kv_heads: int | None = None,
    head_dim: int = 256,
    vocab: int = 256000,
    sandwich: bool = False,
    qk_norm: bool = False,
    scalar: float | None = None,
    cap: float = 0.0,
    final_cap: float = 0.0,
    layer_types: tuple[str, ...] = (),
    pattern: int = 1,
    window: int = 4096,
    activation: str = "gelu_tanh",
    theta: float = 10000.0,
    scaling: Scaling | None = None,
    local_theta: float | None = None,
    local_scaling: Scaling | None = None,
    attention_bias: bool = False,
    bidirectional: bool = False,
    eps: float = 1e-6,
    tied: bool = True,
) -> LanguageModel:
    """A Gemma of any shape. Scores are divided by sqrt(`scalar`), by default head_dim. Of `pattern` layers all but the
    last have a window, unless `layer_types` says otherwise; they use `local_theta` and `local_scaling` if the first is
    given. Scores and logits are capped by `cap` and `final_cap`, unless these are 0. `bidirectional` ones, which embed
    texts (EmbeddingGemma), see the keys behind a query too, in windows to both sides."""
    init, norm = Normal(0.02), RMSNorm(eps, gain="1+w")
    mlp = GatedMLP(d_ff, activation, init=init, out_init=init)
    residual = Sandwich(norm, norm) if sandwich else PreNorm(norm)
    local = Window(window, window if bidirectional else 1)
    everywhere = Bidirectional() if bidirectional else Causal()

    def block(kind: str) -> Block:
        rotary = Rotary(theta=theta, scaling=scaling)
        if kind == LOCAL and local_theta is not None:
            rotary = Rotary(theta=local_theta, scaling=local_scaling)
        attention = Attention(
            heads=heads,
            head_dim=head_dim,
            kv_heads=kv_heads,
            mask=local if kind == LOCAL else everywhere,
            rotary=rotary,
            projections=Projections(("q", "k", "v", "o") if attention_bias else (), init=init, out_init=init),
            softmax=Softmax(None if scalar is None else scalar**-0.5, cap=cap or None),
            qk_norm=QKNorm(norm, norm) if qk_norm else None,
        )
        return sequential(attention, mlp, residual)

    return decoder(
        [block(kind) for kind in layers_of(layer_types, layers, pattern)],
        d_model=d_model,
        vocab=vocab,
        norm=norm,
        tied=tied,
        embed_scale=math.sqrt(d_model),
        head=LMHead(vocab, cap=final_cap or None, init=init),
        init=init,
    )


gemma2 = functools.partial(gemma, sandwich=True, scalar=256.0, cap=50.0, final_cap=30.0, pattern=2)
gemma3 = functools.partial(
    gemma,
    vocab=262208,
    sandwich=True,
    qk_norm=True,
    scalar=256.0,
    pattern=6,
    theta=1000000.0,
    local_theta=10000.0,
)
FAMILIES = {
    "gemma": Family(gemma, SIZES_1, "arXiv 2403.08295"),
    "gemma2": Family(gemma2, SIZES_2, "arXiv 2408.00118"),
    "gemma3": Family(gemma3, SIZES_3, "arXiv 2503.19786"),
}
