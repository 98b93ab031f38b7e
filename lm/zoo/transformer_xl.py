"""Transformer-XL (Dai et al. 2019, arXiv 1901.02860): a post-LayerNorm decoder that also attends to the states that its
layers had for the segment before, without gradient into them. Positions are relative sinusoids with biases u and v, one
pair for all layers; attention has no other biases, the ReLU feed-forward layer has. Words come and go by an adaptive
embedding and an adaptive softmax, tied band by band.

Give `cache`, and positions that run on from call to call, to use the memory; without them a segment stands alone."""

from typing import Any

from lm.core.param import Normal
from lm.model.attention import Attention, Projections
from lm.model.attention_bias import BiasTable, RelativeBias
from lm.model.kv_sources import SegmentMemory
from lm.model.layers import ZEROS, LayerNorm
from lm.model.masks import Causal, Window
from lm.model.mlp import MLP
from lm.model.residual import PostNorm
from lm.model.special.adaptive import AdaptiveEmbed, AdaptiveHead
from lm.model.stack import Stack
from lm.model.transformer import LanguageModel, Transformer
from lm.zoo.family import Family, Sizes
from lm.zoo.parts import head_size, sequential

# As the published scripts build them, for WikiText-103 (words) and enwik8 (characters). The paper prints 257M for the
# large model, whose script makes 285M.
WORDS: dict[str, Any] = {"vocab": 267735, "cutoffs": (20000, 40000, 200000)}
SIZES: Sizes = {
    "base": {"layers": 16, "d_model": 410, "heads": 10, "d_ff": 2100, "memory": 150, **WORDS},
    "large": {"layers": 18, "d_model": 1024, "heads": 16, "d_ff": 4096, "memory": 384, "shrink": 4, **WORDS},
    "enwik8": {"layers": 24, "d_model": 1024, "heads": 8, "d_ff": 3072, "memory": 768, "vocab": 204},
}


def transformer_xl(
    *,
    layers: int,
    d_model: int,
    heads: int,
    d_ff: int,
    vocab: int,
    memory: int,
    head_dim: int | None = None,
    cutoffs: tuple[int, ...] = (),
    shrink: int = 1,
    embed_width: int | None = None,
    tied: bool = True,
    tied_projections: bool = True,
    biases_by_layer: bool = False,
    clamp: int | None = None,
    same_length: bool = False,
    eps: float = 1e-5,
    dropout: float = 0.0,
) -> LanguageModel:
    """A Transformer-XL of any shape; head_dim defaults to d_model / heads.

    `memory`: tokens kept from earlier segments. Words from each of `cutoffs` on have rows `shrink` times as narrow
    (div_val) as those before; the first `embed_width` (d_model) wide. `tied` ties head and embedding; with
    `tied_projections` the bands' projections too, but for the first of bands that shrink. Distances count up to
    `clamp`; with `same_length` each query sees no more than the `memory` keys up to its own."""
    size = head_dim or head_size(d_model, heads)
    init = Normal(0.02)
    tables = () if biases_by_layer else (("biases", BiasTable(2, heads * size, init=ZEROS)),)
    attention = Attention(
        heads=heads,
        head_dim=size,
        mask=Window(memory) if same_length else Causal(),
        bias=(RelativeBias(None if biases_by_layer else "biases", clamp, init),),
        source=SegmentMemory(memory),
        dropout=dropout,
        projections=Projections(init=init, out_init=init),
    )
    mlp = MLP(d_ff, "relu", dropout=dropout, init=init, out_init=init)
    block = sequential(attention, mlp, PostNorm(LayerNorm(eps), dropout=dropout))
    embed = AdaptiveEmbed(vocab, cutoffs, embed_width, shrink, d_model**0.5, dropout, init)
    return LanguageModel(
        body=Transformer(d_model, embed, Stack.of([block] * layers, tables=tables)),
        head=AdaptiveHead(vocab, cutoffs, embed_width, shrink, init),
        ties=_ties(embed, d_model, tied, tied_projections),
    )


def _ties(embed: AdaptiveEmbed, d_model: int, tables: bool, projections: bool) -> tuple[tuple[str, str], ...]:
    """Bands that do not shrink have one projection on the way in, tied or not to those on the way out."""
    bands = embed.bands(d_model)
    ties = [(f"head/{i}/w", f"body/embed/{i}/w") for i in range(len(bands)) if tables]
    if not bands[0].projected:
        return tuple(ties)
    first = "body/embed/0/project"
    for i in range(len(bands)):
        own = f"body/embed/{i}/project"
        if embed.shrink == 1 and i:
            ties.append((own, first))
        if projections and i:
            ties.append((f"head/{i}/project", first if embed.shrink == 1 else own))
    return tuple(ties)


FAMILIES = {"transformer_xl": Family(transformer_xl, SIZES, "arXiv 1901.02860")}
