"""GLM (Du et al. 2021, arXiv 2103.10360), GLM-130B and ChatGLM-6B (Zeng et al. 2022, 2210.02414; THUDM 2023): decoders
that fill in blanks. The text around the blanks is seen in both directions (the row `prefix`); spans are written after
it, one after the other. The position in the text of a span's token is that of its blank (the row `text_position`); it
also has a position within the span (the row `span`).

GLM has GPT-2's layers and a learned table for each of the two positions. The others are DeepNorm's post-norm models
(their code norms what comes into a sub-layer and keeps alpha times that, which is the same with a norm of the
embeddings in front and without a final one): GLM-130B with rotary positions and GeGLU; ChatGLM-6B turns one half of
each head by each of the two positions. ChatGLM 2 and 3 are in `lm.zoo.glm`."""

import functools

from lm.core.param import Normal
from lm.model.attention import Attention, Projections
from lm.model.embed import Embed, RowTable
from lm.model.heads import LMHead
from lm.model.layers import LayerNorm
from lm.model.masks import Prefix
from lm.model.mlp import MLP, GatedMLP
from lm.model.positions import Learned
from lm.model.residual import PostNorm
from lm.model.rotary import Rotary, Rotary2D
from lm.model.stack import Stack
from lm.model.transformer import LanguageModel, Transformer
from lm.zoo.family import Family, Sizes
from lm.zoo.parts import decoder, head_size, language_model, pre_norm, sequential

_SMALL, _LARGE = {"vocab": 30592, "context": 512}, {"vocab": 50304, "context": 1024}
SIZES: Sizes = {
    "base": {"layers": 12, "d_model": 768, "heads": 12, **_SMALL},
    "large": {"layers": 24, "d_model": 1024, "heads": 16, **_SMALL},
    "2b": {"layers": 36, "d_model": 2048, "heads": 32, **_LARGE},
    "10b": {"layers": 48, "d_model": 4096, "heads": 64, **_LARGE},
}
SIZES_130B = {"130b": {"layers": 70, "d_model": 12288, "heads": 96, "d_ff": 32768}}
SIZES_CHAT = {"6b": {"layers": 28, "d_model": 4096, "heads": 32, "d_ff": 16384}}


def glm(
    *,
    layers: int,
    d_model: int,
    heads: int,
    head_dim: int | None = None,
    d_ff: int | None = None,
    vocab: int = 50304,
    context: int = 1024,
    activation: str = "gelu_tanh",
    eps: float = 1e-5,
    dropout: float = 0.0,
    tied: bool = True,
) -> LanguageModel:
    """A GLM of any shape. d_ff defaults to 4 d_model. Both position tables have context + 1 rows."""
    init, out_init = Normal(0.02), Normal(0.02, depth=2 * layers)
    attention = Attention(
        heads=heads,
        head_dim=head_dim or head_size(d_model, heads),
        mask=Prefix(),
        projections=Projections(("q", "k", "v", "o"), init=init, out_init=out_init),
        dropout=dropout,
    )
    mlp = MLP(d_ff or 4 * d_model, activation, init=init, out_init=out_init)
    block = pre_norm(attention, mlp, LayerNorm(eps), dropout)
    rows = context + 1
    embed = Embed(vocab, Learned(rows, init=init), extra=(RowTable("span", rows, init),), dropout=dropout, init=init)
    return language_model(
        Transformer(d_model, embed, Stack.of([block] * layers, norm=LayerNorm(eps))),
        LMHead(vocab, init=init),
        tied,
    )


def deep_glm(
    *,
    layers: int,
    d_model: int,
    heads: int,
    d_ff: int,
    head_dim: int | None = None,
    vocab: int = 150528,
    rotary: Rotary | Rotary2D = Rotary(),
    gated: bool = True,
    activation: str = "gelu",
    alpha: float | None = None,
    eps: float = 1e-5,
    dropout: float = 0.0,
    tied: bool = True,
) -> LanguageModel:
    """A GLM-130B or, not `gated`, a ChatGLM-6B of any shape. `alpha`, by which the residual stream is multiplied,
    defaults to sqrt(2 layers)."""
    init, out_init, norm = Normal(0.02), Normal(0.02, depth=2 * layers), LayerNorm(eps)
    attention = Attention(
        heads=heads,
        head_dim=head_dim or head_size(d_model, heads),
        mask=Prefix(),
        rotary=rotary,
        projections=Projections(("q", "k", "v", "o"), init=init, out_init=out_init),
        dropout=dropout,
    )
    mlp = (GatedMLP if gated else MLP)(d_ff, activation, bias=True, init=init, out_init=out_init)
    residual = PostNorm(norm, (2 * layers) ** 0.5 if alpha is None else alpha, dropout)
    return decoder(
        [sequential(attention, mlp, residual)] * layers,
        d_model=d_model,
        vocab=vocab,
        norm=None,
        tied=tied,
        embed_norm=norm,
        dropout=dropout,
        init=init,
    )


chatglm = functools.partial(deep_glm, vocab=130528, rotary=Rotary2D(), gated=False, activation="gelu_tanh")
FAMILIES = {
    "glm": Family(glm, SIZES, "arXiv 2103.10360"),
    "glm-130b": Family(deep_glm, SIZES_130B, "arXiv 2210.02414"),
    "chatglm": Family(chatglm, SIZES_CHAT, "arXiv 2210.02414, 2406.12793"),
}
