"""GPT-1 (Radford et al. 2018): a post-LayerNorm decoder with learned positions and a tied head, without final norm."""

from lm.core.param import Normal
from lm.model.attention import Attention, Projections
from lm.model.layers import LayerNorm
from lm.model.mlp import MLP
from lm.model.positions import Learned
from lm.model.residual import PostNorm
from lm.model.transformer import LanguageModel
from lm.zoo.family import Family
from lm.zoo.parts import decoder, head_size, sequential

SIZES = {"base": {"layers": 12, "d_model": 768, "heads": 12}}


def gpt1(
    *,
    layers: int,
    d_model: int,
    heads: int,
    d_ff: int | None = None,
    vocab: int = 40478,
    context: int = 512,
    activation: str = "gelu_tanh",
    eps: float = 1e-5,
    dropout: float = 0.0,
    tied: bool = True,
) -> LanguageModel:
    """A GPT-1 of any shape. d_ff defaults to 4 d_model."""
    init = Normal(0.02)
    attention = Attention(
        heads=heads,
        head_dim=head_size(d_model, heads),
        projections=Projections(("q", "k", "v", "o"), init=init, out_init=init),
        dropout=dropout,
    )
    mlp = MLP(d_ff or 4 * d_model, activation, init=init, out_init=init)
    block = sequential(attention, mlp, PostNorm(LayerNorm(eps), dropout=dropout))
    return decoder(
        [block] * layers,
        d_model=d_model,
        vocab=vocab,
        norm=None,
        tied=tied,
        position=Learned(context, init=init),
        dropout=dropout,
        init=init,
    )


FAMILIES = {"gpt1": Family(gpt1, SIZES, "Radford et al. 2018")}
