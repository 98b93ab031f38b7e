"""Gopher (Rae et al. 2021, arXiv 2112.11446) and Chinchilla (Hoffmann et al. 2022, 2203.15556): GPT-2's decoder with
RMSNorm, and Transformer-XL's relative positions (without its memory) in place of learned ones.

The papers give shapes and totals; those fit a model without biases whose head is tied. Its activation is not published:
GPT-2's GELU stands in for it."""

from lm.core.param import Normal
from lm.model.attention import Attention, Projections
from lm.model.attention_bias import RelativeBias
from lm.model.layers import RMSNorm
from lm.model.mlp import MLP
from lm.model.transformer import LanguageModel
from lm.zoo.family import Family
from lm.zoo.parts import decoder, head_size, pre_norm

SIZES = {
    "44m": {"layers": 8, "d_model": 512, "heads": 16},
    "117m": {"layers": 12, "d_model": 768, "heads": 12},
    "417m": {"layers": 12, "d_model": 1536, "heads": 12},
    "1.4b": {"layers": 24, "d_model": 2048, "heads": 16},
    "7.1b": {"layers": 32, "d_model": 4096, "heads": 32},
    "280b": {"layers": 80, "d_model": 16384, "heads": 128},
}
CHINCHILLA = {"70b": {"layers": 80, "d_model": 8192, "heads": 64}}


def gopher(
    *,
    layers: int,
    d_model: int,
    heads: int,
    head_dim: int | None = None,
    d_ff: int | None = None,
    vocab: int = 32000,
    activation: str = "gelu_tanh",
    clamp: int | None = None,
    eps: float = 1e-6,
    dropout: float = 0.0,
    tied: bool = True,
) -> LanguageModel:
    """A Gopher of any shape. head_dim defaults to d_model / heads, d_ff to 4 d_model; distances count up to `clamp`."""
    init, out_init = Normal(0.02), Normal(0.02, depth=2 * layers)
    attention = Attention(
        heads=heads,
        head_dim=head_dim or head_size(d_model, heads),
        bias=(RelativeBias(clamp=clamp, init=init),),
        dropout=dropout,
        projections=Projections(init=init, out_init=out_init),
    )
    mlp = MLP(d_ff or 4 * d_model, activation, bias=False, init=init, out_init=out_init)
    return decoder(
        [pre_norm(attention, mlp, RMSNorm(eps), dropout)] * layers,
        d_model=d_model,
        vocab=vocab,
        norm=RMSNorm(eps),
        tied=tied,
        dropout=dropout,
        init=init,
    )


FAMILIES = {
    "gopher": Family(gopher, SIZES, "arXiv 2112.11446"),
    "chinchilla": Family(gopher, CHINCHILLA, "arXiv 2203.15556"),
}
