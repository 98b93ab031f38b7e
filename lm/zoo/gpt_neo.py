"""GPT-Neo (Black et al. 2021, EleutherAI): GPT-2's layers, whose attention alternates between all tokens and a window,
is not divided by sqrt(head_dim), and has a bias behind the output projection only."""

from lm.core.param import Normal
from lm.model.attention import Attention, Projections, Softmax
from lm.model.block import Block
from lm.model.layers import LayerNorm
from lm.model.masks import Causal, Window
from lm.model.mlp import MLP
from lm.model.positions import Learned
from lm.model.transformer import LanguageModel
from lm.zoo.family import Family
from lm.zoo.parts import GLOBAL, LOCAL, decoder, head_size, layers_of, pre_norm

SIZES = {
    "125m": {"layers": 12, "d_model": 768, "heads": 12},
    "1.3b": {"layers": 24, "d_model": 2048, "heads": 16},
    "2.7b": {"layers": 32, "d_model": 2560, "heads": 20},
}


def gpt_neo(
    *,
    layers: int,
    d_model: int,
    heads: int,
    d_ff: int | None = None,
    vocab: int = 50257,
    context: int = 2048,
    layer_types: tuple[str, ...] = (),
    window: int = 256,
    activation: str = "gelu_tanh",
    eps: float = 1e-5,
    tied: bool = True,
) -> LanguageModel:
    """A GPT-Neo of any shape. By default every second layer is local; d_ff defaults to 4 d_model."""
    init = Normal(0.02)
    mlp = MLP(d_ff or 4 * d_model, activation, init=init, out_init=init)

    def block(kind: str) -> Block:
        attention = Attention(
            heads=heads,
            head_dim=head_size(d_model, heads),
            mask=Window(window) if kind == LOCAL else Causal(),
            projections=Projections(("o",), init=init, out_init=init),
            softmax=Softmax(1.0),
        )
        return pre_norm(attention, mlp, LayerNorm(eps))

    kinds = layer_types or tuple((GLOBAL, LOCAL)[i % 2] for i in range(layers))
    return decoder(
        [block(kind) for kind in layers_of(kinds, layers)],
        d_model=d_model,
        vocab=vocab,
        norm=LayerNorm(eps),
        tied=tied,
        position=Learned(context, init=init),
        init=init,
    )


FAMILIES = {"gpt_neo": Family(gpt_neo, SIZES, "Black et al. 2021")}
