"""StableLM 3B and StableLM 2 (Bellagente et al. 2024, arXiv 2402.17834): LLaMA's layers with LayerNorm and rotary
positions on a quarter of each head; the 12B one sets attention and MLP side by side and norms each head's queries
and keys."""

from lm.core.param import Normal
from lm.model.attention import Attention, Projections, QKNorm
from lm.model.layers import LayerNorm
from lm.model.mlp import GatedMLP
from lm.model.rotary import Rotary, Scaling
from lm.model.transformer import LanguageModel
from lm.zoo.family import Family
from lm.zoo.parts import decoder, head_size, parallel, pre_norm

SIZES = {
    "3b": {"layers": 32, "d_model": 2560, "heads": 32, "d_ff": 6912},
    "2-1.6b": {"layers": 24, "d_model": 2048, "heads": 32, "d_ff": 5632, "vocab": 100352, "qkv_bias": True},
    "2-12b": {
        "layers": 40,
        "d_model": 5120,
        "heads": 32,
        "kv_heads": 8,
        "d_ff": 13824,
        "vocab": 100352,
        "qk_norm": True,
        "side_by_side": True,
    },
}


def stablelm(
    *,
    layers: int,
    d_model: int,
    heads: int,
    d_ff: int,
    kv_heads: int | None = None,
    head_dim: int | None = None,
    vocab: int = 50304,
    activation: str = "silu",
    theta: float = 10000.0,
    fraction: float = 0.25,
    scaling: Scaling | None = None,
    qkv_bias: bool = False,
    qk_norm: bool = False,
    side_by_side: bool = False,
    eps: float = 1e-5,
    tied: bool = False,
) -> LanguageModel:
    """A StableLM of any shape."""
    init, norm = Normal(0.02), LayerNorm(eps)
    attention = Attention(
        heads=heads,
        head_dim=head_dim or head_size(d_model, heads),
        kv_heads=kv_heads,
        rotary=Rotary(theta=theta, fraction=fraction, scaling=scaling),
        projections=Projections(("q", "k", "v") if qkv_bias else (), init=init, out_init=init),
        qk_norm=QKNorm(LayerNorm(eps, bias=False), LayerNorm(eps, bias=False), over="each") if qk_norm else None,
    )
    mlp = GatedMLP(d_ff, activation, init=init, out_init=init)
    block = parallel(attention, mlp, norm) if side_by_side else pre_norm(attention, mlp, norm)
    return decoder([block] * layers, d_model=d_model, vocab=vocab, norm=norm, tied=tied, init=init)


FAMILIES = {"stablelm": Family(stablelm, SIZES, "arXiv 2402.17834")}
