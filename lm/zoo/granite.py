"""Granite 3 (Granite team 2024, IBM): LLaMA's layers with grouped queries, a tied head, and the four multipliers of
muP (Yang et al. 2022, arXiv 2203.03466): of the embeddings, scores, sub-layers' outputs and logits."""

from lm.core.param import Normal
from lm.model.attention import Attention, Projections, Softmax
from lm.model.heads import LMHead
from lm.model.layers import RMSNorm
from lm.model.mlp import GatedMLP
from lm.model.residual import PreNorm
from lm.model.rotary import Rotary, Scaling
from lm.model.transformer import LanguageModel
from lm.zoo.family import Family, Sizes
from lm.zoo.parts import decoder, head_size, sequential

_2B = {"layers": 40, "d_model": 2048, "heads": 32, "kv_heads": 8, "d_ff": 8192}
_8B = {"layers": 40, "d_model": 4096, "heads": 32, "kv_heads": 8, "d_ff": 12800, "logit_divisor": 16.0}
SIZES: Sizes = {
    "3.0-2b": _2B,
    "3.0-8b": _8B,
    "3.1-2b": {**_2B, "theta": 5000000.0},
    "3.1-8b": {**_8B, "theta": 10000000.0},
}


def granite(
    *,
    layers: int,
    d_model: int,
    heads: int,
    d_ff: int,
    kv_heads: int | None = None,
    head_dim: int | None = None,
    vocab: int = 49155,
    activation: str = "silu",
    theta: float = 10000.0,
    scaling: Scaling | None = None,
    embed_scale: float = 12.0,
    score_scale: float | None = None,
    residual_scale: float = 0.22,
    logit_divisor: float = 8.0,
    attention_bias: bool = False,
    mlp_bias: bool = False,
    eps: float = 1e-5,
    tied: bool = True,
) -> LanguageModel:
    """A Granite of any shape. `score_scale` defaults to 1 / head_dim."""
    init, head_dim = Normal(0.02), head_dim or head_size(d_model, heads)
    attention = Attention(
        heads=heads,
        head_dim=head_dim,
        kv_heads=kv_heads,
        rotary=Rotary(theta=theta, scaling=scaling),
        softmax=Softmax(1 / head_dim if score_scale is None else score_scale),
        projections=Projections(("q", "k", "v", "o") if attention_bias else (), init=init, out_init=init),
    )
    mlp = GatedMLP(d_ff, activation, bias=mlp_bias, init=init, out_init=init)
    block = sequential(attention, mlp, PreNorm(RMSNorm(eps), scale=residual_scale))
    return decoder(
        [block] * layers,
        d_model=d_model,
        vocab=vocab,
        norm=RMSNorm(eps),
        tied=tied,
        embed_scale=embed_scale,
        head=LMHead(vocab, scale=1 / logit_divisor, init=init),
        init=init,
    )


FAMILIES = {"granite": Family(granite, SIZES, "IBM 2024")}
