"""MPT (MosaicML 2023): pre-LayerNorm decoder without any bias, with ALiBi, exact GELU and a tied head."""

from lm.core.param import Normal
from lm.model.attention import Attention, Projections, Softmax
from lm.model.attention_bias import Alibi
from lm.model.layers import LayerNorm
from lm.model.mlp import MLP
from lm.model.transformer import LanguageModel
from lm.zoo.family import Family
from lm.zoo.parts import decoder, head_size, pre_norm

SIZES = {
    "7b": {"layers": 32, "d_model": 4096, "heads": 32},
    "30b": {"layers": 48, "d_model": 7168, "heads": 64},
}


def mpt(
    *,
    layers: int,
    d_model: int,
    heads: int,
    vocab: int = 50432,
    scale: float | None = None,
    clip: float | None = None,
    eps: float = 1e-5,
    tied: bool = True,
) -> LanguageModel:
    """An MPT of any shape. Scores are multiplied by `scale`, by default head_dim ** -0.5."""
    init, out_init = Normal(0.02), Normal(0.02, depth=2 * layers)
    attention = Attention(
        heads=heads,
        head_dim=head_size(d_model, heads),
        bias=(Alibi(),),
        softmax=Softmax(scale),
        projections=Projections(clip=clip, init=init, out_init=out_init),
    )
    norm = LayerNorm(eps, bias=False)
    block = pre_norm(attention, MLP(4 * d_model, "gelu", bias=False, init=init, out_init=out_init), norm)
    return decoder([block] * layers, d_model=d_model, vocab=vocab, norm=norm, tied=tied, init=init)


FAMILIES = {"mpt": Family(mpt, SIZES, "MosaicML 2023")}
