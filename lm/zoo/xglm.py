"""XGLM (Lin et al. 2021, arXiv 2112.10668) and InCoder (Fried et al. 2022, 2204.05999): fairseq's pre-LayerNorm decoder
with biases, embeddings times sqrt(d), sinusoids whose first token stands behind the padding id, exact GELU, a tied
head."""

import functools
import math

from lm.core.param import Normal
from lm.model.attention import Attention, Projections
from lm.model.layers import LayerNorm
from lm.model.mlp import MLP
from lm.model.positions import Sinusoidal
from lm.model.transformer import LanguageModel
from lm.zoo.family import Family
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
        projections=Projections(("q", "k", "v", "o"), init=init, out_init=init),
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
