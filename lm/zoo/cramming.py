"""The BERT that trains on one GPU in a day (Geiping and Goldstein 2022, arXiv 2212.14034; final recipe).

Pre-LayerNorm encoder with a norm on the embedding and a final one, gated GELU, no biases but the norms', and a tied
head without a transform. Positions are sinusoids, divided by sqrt(d_model); here tokens are multiplied by that instead,
which is the same to the norm that follows. (In their code the divisor is trained, a single number.)"""

import math

from lm.core.param import Normal
from lm.model.attention import Attention, Projections
from lm.model.embed import Embed
from lm.model.heads import LMHead
from lm.model.layers import LayerNorm
from lm.model.masks import Bidirectional
from lm.model.mlp import GatedMLP
from lm.model.positions import Sinusoidal
from lm.model.stack import Stack
from lm.model.transformer import LanguageModel, Transformer
from lm.zoo.family import Family
from lm.zoo.parts import head_size, language_model, pre_norm

SIZES = {"base": {"layers": 16, "d_model": 768, "heads": 12}}


def cramming(
    *,
    layers: int,
    d_model: int,
    heads: int,
    d_ff: int | None = None,
    vocab: int = 32768,
    activation: str = "gelu",
    eps: float = 1e-12,
    dropout: float = 0.0,
    tied: bool = True,
) -> LanguageModel:
    """A crammed BERT of any shape. d_ff, the width behind the gate, defaults to 2 d_model."""
    init, norm = Normal(0.02), LayerNorm(eps)
    attention = Attention(
        heads=heads,
        head_dim=head_size(d_model, heads),
        mask=Bidirectional(),
        dropout=dropout,
        projections=Projections(init=init, out_init=init),
    )
    mlp = GatedMLP(d_ff or 2 * d_model, activation, init=init, out_init=init)
    embed = Embed(vocab, Sinusoidal(), norm=norm, scale=math.sqrt(d_model), dropout=dropout, init=init)
    return language_model(
        Transformer(d_model, embed, Stack.of([pre_norm(attention, mlp, norm, dropout)] * layers, norm=norm)),
        LMHead(vocab, init=init),
        tied,
    )


FAMILIES = {"cramming": Family(cramming, SIZES, "arXiv 2212.14034")}
