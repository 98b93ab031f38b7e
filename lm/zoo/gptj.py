"""GPT-J (Wang and Komatsuzaki 2021) and CodeGen (Nijkamp et al. 2022, arXiv 2203.13474): attention and MLP side by side
behind one LayerNorm, rotary positions on the first elements of each head, an untied head with a bias."""

import functools

from lm.core.param import Normal
from lm.model.attention import Attention, Projections
from lm.model.heads import LMHead
from lm.model.layers import LayerNorm
from lm.model.mlp import MLP
from lm.model.rotary import Rotary
from lm.model.transformer import LanguageModel
from lm.zoo.family import Family
from lm.zoo.parts import decoder, head_size, parallel, rotated

SIZES = {"6b": {"layers": 28, "d_model": 4096, "heads": 16, "rotary_dim": 64}}
CODEGEN = {
    "350m": {"layers": 20, "d_model": 1024, "heads": 16, "rotary_dim": 32},
    "2b": {"layers": 32, "d_model": 2560, "heads": 32, "rotary_dim": 64},
    "6b": {"layers": 33, "d_model": 4096, "heads": 16, "rotary_dim": 64},
    "16b": {"layers": 34, "d_model": 6144, "heads": 24, "rotary_dim": 64},
}


def gptj(
    *,
    layers: int,
    d_model: int,
    heads: int,
    d_ff: int | None = None,
    vocab: int = 50400,
    rotary_dim: int | None = None,
    activation: str = "gelu_tanh",
    eps: float = 1e-5,
    tied: bool = False,
) -> LanguageModel:
    """A GPT-J of any shape. d_ff defaults to 4 d_model; without `rotary_dim` heads are rotated whole."""
    init = Normal(0.02)
    head_dim = head_size(d_model, heads)
    attention = Attention(
        heads=heads,
        head_dim=head_dim,
        rotary=Rotary(fraction=rotated(rotary_dim or head_dim, head_dim), interleaved=True),
        projections=Projections(init=init, out_init=init),
    )
    mlp = MLP(d_ff or 4 * d_model, activation, init=init, out_init=init)
    return decoder(
        [parallel(attention, mlp, LayerNorm(eps))] * layers,
        d_model=d_model,
        vocab=vocab,
        norm=LayerNorm(eps),
        tied=tied,
        head=LMHead(vocab, bias=True, init=init),
        init=init,
    )


FAMILIES = {
    "gptj": Family(gptj, SIZES, "Wang and Komatsuzaki 2021"),
    "codegen": Family(functools.partial(gptj, vocab=51200), CODEGEN, "arXiv 2203.13474"),
}
