"""OPT (Zhang et al. 2022, arXiv 2205.01068) and Galactica (Taylor et al. 2022, 2211.09085): GPT-3's layers with ReLU,
learned positions that begin at row 2, a tied head. OPT-350M norms after each sub-layer and has narrower embeddings;
Galactica has no biases, GELU, and norms without parameters."""

import functools

from lm.core.param import Normal
from lm.model.attention import Attention, Projections
from lm.model.embed import Embed
from lm.model.heads import LMHead
from lm.model.layers import LayerNorm
from lm.model.mlp import MLP
from lm.model.positions import Learned
from lm.model.residual import PostNorm, PreNorm
from lm.model.stack import Stack
from lm.model.transformer import LanguageModel, Transformer
from lm.zoo.family import Family
from lm.zoo.parts import head_size, language_model, sequential

SIZES = {
    "125m": {"layers": 12, "d_model": 768, "heads": 12},
    "350m": {"layers": 24, "d_model": 1024, "heads": 16, "embed_width": 512, "norm_first": False},
    "1.3b": {"layers": 24, "d_model": 2048, "heads": 32},
    "2.7b": {"layers": 32, "d_model": 2560, "heads": 32},
    "6.7b": {"layers": 32, "d_model": 4096, "heads": 32},
    "13b": {"layers": 40, "d_model": 5120, "heads": 40},
    "30b": {"layers": 48, "d_model": 7168, "heads": 56},
    "66b": {"layers": 64, "d_model": 9216, "heads": 72},
    "175b": {"layers": 96, "d_model": 12288, "heads": 96},
}
GALACTICA = {
    "mini": {"layers": 12, "d_model": 768, "heads": 12},
    "base": {"layers": 24, "d_model": 2048, "heads": 32},
    "standard": {"layers": 32, "d_model": 4096, "heads": 32},
    "large": {"layers": 48, "d_model": 7168, "heads": 56},
    "huge": {"layers": 96, "d_model": 10240, "heads": 80},
}
OFFSET = 2


def opt(
    *,
    layers: int,
    d_model: int,
    heads: int,
    d_ff: int | None = None,
    vocab: int = 50272,
    context: int = 2048,
    embed_width: int | None = None,
    activation: str = "relu",
    norm_first: bool = True,
    final_norm: bool = True,
    bias: bool = True,
    affine: bool = True,
    dropout: float = 0.0,
    tied: bool = True,
) -> LanguageModel:
    """An OPT of any shape. Norms have parameters if `affine`; the final one is there only with `norm_first`. d_ff
    defaults to 4 d_model."""
    init, out_init = Normal(0.006), Normal(0.006, depth=2 * layers)
    norm = LayerNorm(1e-5) if affine else LayerNorm(1e-5, bias=False, gain="none")
    attention = Attention(
        heads=heads,
        head_dim=head_size(d_model, heads),
        projections=Projections(("q", "k", "v", "o") if bias else (), init=init, out_init=out_init),
        dropout=dropout,
    )
    mlp = MLP(d_ff or 4 * d_model, activation, bias=bias, init=init, out_init=out_init)
    residual = PreNorm(norm, dropout) if norm_first else PostNorm(norm, dropout=dropout)
    block = sequential(attention, mlp, residual)
    width = None if embed_width in (None, d_model) else embed_width
    position = Learned(context + OFFSET, OFFSET, init)
    at = "tokens" if width else "end"
    embed = Embed(vocab, position, width=width, project=at, dropout=dropout, init=init)
    return language_model(
        Transformer(d_model, embed, Stack.of([block] * layers, norm=norm if norm_first and final_norm else None)),
        LMHead(vocab, width=width, init=init),
        tied,
    )


FAMILIES = {
    "opt": Family(opt, SIZES, "arXiv 2205.01068"),
    "galactica": Family(
        functools.partial(opt, vocab=50000, activation="gelu", bias=False, affine=False), GALACTICA, "arXiv 2211.09085"
    ),
}
