"""BLOOM (Workshop et al. 2022, arXiv 2211.05100) and BloombergGPT (Wu et al. 2023, 2303.17564): pre-LayerNorm decoders
with ALiBi instead of positions, a norm behind the embedding, biases everywhere, a tied head."""

import functools

from lm.core.param import Normal
from lm.model.attention import Attention, Projections
from lm.model.attention_bias import Alibi
from lm.model.layers import LayerNorm
from lm.model.mlp import MLP
from lm.model.residual import PreNorm
from lm.model.transformer import LanguageModel
from lm.zoo.family import Family
from lm.zoo.parts import decoder, head_size, sequential

SIZES = {
    "560m": {"layers": 24, "d_model": 1024, "heads": 16},
    "1.1b": {"layers": 24, "d_model": 1536, "heads": 16},
    "1.7b": {"layers": 24, "d_model": 2048, "heads": 16},
    "3b": {"layers": 30, "d_model": 2560, "heads": 32},
    "7.1b": {"layers": 30, "d_model": 4096, "heads": 32},
    "176b": {"layers": 70, "d_model": 14336, "heads": 112},
}
BLOOMBERG = {"50b": {"layers": 70, "d_model": 7680, "heads": 40}}


def bloom(
    *,
    layers: int,
    d_model: int,
    heads: int,
    vocab: int = 250880,
    eps: float = 1e-5,
    residual_from_norm: bool = False,
    dropout: float = 0.0,
    tied: bool = True,
) -> LanguageModel:
    """A BLOOM of any shape; with `residual_from_norm` each residual is taken behind its norm."""
    init, out_init = Normal((3 * d_model) ** -0.5), Normal((3 * d_model) ** -0.5, depth=2 * layers)
    attention = Attention(
        heads=heads,
        head_dim=head_size(d_model, heads),
        bias=(Alibi(),),
        projections=Projections(("q", "k", "v", "o"), init=init, out_init=out_init),
        dropout=dropout,
    )
    mlp = MLP(4 * d_model, "gelu_tanh", init=init, out_init=out_init)
    norm = LayerNorm(eps)
    block = sequential(attention, mlp, PreNorm(norm, dropout, normed=residual_from_norm))
    return decoder([block] * layers, d_model=d_model, vocab=vocab, norm=norm, tied=tied, embed_norm=norm, init=init)


FAMILIES = {
    "bloom": Family(bloom, SIZES, "arXiv 2211.05100"),
    "bloomberg": Family(functools.partial(bloom, vocab=131072), BLOOMBERG, "arXiv 2303.17564"),
}
