"""PaLM (Chowdhery et al. 2022, arXiv 2204.02311): attention and SwiGLU side by side behind one LayerNorm without bias,
one key and value head for all queries, rotary positions, no biases, a tied head.

Nothing norms the embeddings, so their table starts with unit variance, and logits are divided by sqrt(d_model). The
paper does not give the norms' eps. U-PaLM (Tay et al. 2022, 2210.11399) sees a prefix in both directions."""

from lm.core.param import FanIn, Normal
from lm.model.attention import Attention, Projections
from lm.model.embed import Embed
from lm.model.heads import LMHead
from lm.model.layers import LayerNorm
from lm.model.masks import Causal, MaskKind
from lm.model.mlp import GatedMLP
from lm.model.rotary import Rotary
from lm.model.stack import Stack
from lm.model.transformer import LanguageModel, Transformer
from lm.zoo.family import Family
from lm.zoo.parts import language_model, parallel

SIZES = {
    "8b": {"layers": 32, "d_model": 4096, "heads": 16},
    "62b": {"layers": 64, "d_model": 8192, "heads": 32},
    "540b": {"layers": 118, "d_model": 18432, "heads": 48},
}


def palm(
    *,
    layers: int,
    d_model: int,
    heads: int,
    kv_heads: int = 1,
    head_dim: int = 256,
    d_ff: int | None = None,
    vocab: int = 256000,
    activation: str = "silu",
    mask: MaskKind = Causal(),
    theta: float = 10000.0,
    eps: float = 1e-6,
    tied: bool = True,
) -> LanguageModel:
    """A PaLM of any shape. d_ff defaults to 4 d_model; U-PaLM's mask is `Prefix()`."""
    init, norm = FanIn(), LayerNorm(eps, bias=False)
    attention = Attention(
        heads=heads,
        head_dim=head_dim,
        kv_heads=kv_heads,
        mask=mask,
        rotary=Rotary(theta=theta),
        projections=Projections(init=init, out_init=init),
    )
    mlp = GatedMLP(d_ff or 4 * d_model, activation, init=init, out_init=init)
    return language_model(
        Transformer(
            d_model, Embed(vocab, init=Normal(1.0)), Stack.of([parallel(attention, mlp, norm)] * layers, norm=norm)
        ),
        LMHead(vocab, scale=d_model**-0.5, init=Normal(1.0)),
        tied,
    )


FAMILIES = {"palm": Family(palm, SIZES, "arXiv 2204.02311")}
