"""ERNIE 3.0 (Sun et al. 2021, arXiv 2107.02137) and ERNIE 3.0 Titan (Wang et al. 2021, 2112.12731): a wide
Transformer-XL for all tasks, and on its states, projected to another width, a small one for each kind of task:
understanding, which looks both ways, and generation, which does not.

The mask holds in the wide part too, lest generation see ahead. Norms' place, biases, vocabulary and the head's tying
are unpublished: post-LayerNorm as in Transformer-XL, biases everywhere, the 40 thousand tokens of the released smaller
models, and a head of its own stand in for them."""

from typing import Any

from lm.core.param import Normal
from lm.model.attention import Attention, Projections
from lm.model.attention_bias import RelativeBias
from lm.model.block import Block
from lm.model.embed import Embed
from lm.model.heads import LMHead
from lm.model.kv_sources import SegmentMemory
from lm.model.layers import LayerNorm
from lm.model.masks import Bidirectional, Causal
from lm.model.mlp import MLP
from lm.model.residual import PostNorm
from lm.model.special.resize import Resize
from lm.model.stack import Stack
from lm.model.transformer import Group, LanguageModel, Transformer
from lm.zoo.family import Family
from lm.zoo.parts import head_size, sequential

SIZES = {
    "10b": {"layers": 48, "d_model": 4096, "heads": 64},
    "titan-260b": {"layers": 48, "d_model": 12288, "heads": 192, "d_ff": 196608},
}


def ernie3(
    *,
    layers: int,
    d_model: int,
    heads: int,
    d_ff: int | None = None,
    task_layers: int = 12,
    task_d_model: int = 768,
    task_heads: int = 12,
    task_d_ff: int | None = None,
    causal: bool = True,
    memory: int = 128,
    vocab: int = 40000,
    eps: float = 1e-5,
    dropout: float = 0.0,
) -> LanguageModel:
    """The part of an ERNIE 3.0 that generates or, not `causal`, the one that understands; `ernie3_pair` has both. MLPs
    are by default four times as wide as states; `memory` is how many tokens of the text before are read."""
    init, norm = Normal(0.02), LayerNorm(eps)

    def block(d_model: int, heads: int, d_ff: int | None) -> Block:
        attention = Attention(
            heads,
            head_size(d_model, heads),
            mask=Causal() if causal else Bidirectional(),
            bias=(RelativeBias(init=init),),
            source=SegmentMemory(memory),
            projections=Projections(("q", "k", "v", "o"), init=init, out_init=init),
            dropout=dropout,
        )
        mlp = MLP(d_ff or 4 * d_model, "gelu", init=init, out_init=init)
        return sequential(attention, mlp, PostNorm(norm, dropout=dropout))

    shared = Stack.of([block(d_model, heads, d_ff)] * layers).segments
    own = Stack.of([block(task_d_model, task_heads, task_d_ff)] * task_layers).segments
    stack = Stack((*shared, Resize(task_d_model, init=init), *own))
    return LanguageModel(
        Transformer(d_model, Embed(vocab, norm=norm, dropout=dropout, init=init), stack), LMHead(vocab, init=init)
    )


def ernie3_pair(**knobs: Any) -> Group:
    """Both parts of the ERNIE 3.0 that `ernie3` makes with these knobs, with one embedding and one wide part.
    They train under `lm.objectives.together.Together`."""
    parts = tuple((name, ernie3(causal=name == "generation", **knobs)) for name in ("understanding", "generation"))
    segments = parts[0][1].body.stack.segments
    wide = next(i for i, segment in enumerate(segments) if isinstance(segment, Resize))
    shared = ("body/embed", *(f"body/stack/{i}" for i in range(wide)))
    return Group(parts, tuple((f"generation/{path}", f"understanding/{path}") for path in shared))


FAMILIES = {"ernie3": Family(ernie3, SIZES, "arXiv 2107.02137, 2112.12731")}
