"""What many families share: shapes that follow from others, and towers around a list of blocks."""

import dataclasses
import math
from collections.abc import Collection, Sequence
from typing import Any

from lm.core.errors import UserError
from lm.core.param import Initializer, Normal, Ties
from lm.model.block import Block, Layer, Parallel
from lm.model.embed import Embed
from lm.model.heads import Head, LMHead
from lm.model.layers import Norm
from lm.model.mlp import GatedMLP
from lm.model.moe.dispatch import Dropless
from lm.model.moe.layer import MoE
from lm.model.moe.top_k import Groups, TopK
from lm.model.positions import Learned, Sinusoidal
from lm.model.residual import Plain, PreNorm, Residual
from lm.model.stack import Stack
from lm.model.transformer import LanguageModel, Transformer

GLOBAL, LOCAL = "full_attention", "sliding_attention"  # in `layer_types`, as Hugging Face has them


def head_size(d_model: int, heads: int) -> int:
    """d_model / heads, the usual head_dim. Raises `UserError` where that is no whole number."""
    if heads < 1 or d_model % heads:
        raise UserError(
            f"model.d_model={d_model} is no multiple of model.heads={heads}: change one, or set model.head_dim"
        )
    return d_model // heads


def rotated(elements: int, head_dim: int) -> float:
    """The fraction of a head that `Rotary` takes for so many elements: 10 / 24 of 24 would fall short of 10."""
    fraction = elements / head_dim
    return fraction if int(head_dim * fraction) == elements else math.nextafter(fraction, 2.0)


def eight_thirds(d_model: int, multiple: int = 256) -> int:
    """8/3 d_model, rounded up: the width that gives a gated MLP as many parameters as a plain one of 4 d_model."""
    return -(-8 * d_model // 3 // multiple) * multiple


def sequential(attention: Any, mlp: Any, residual: Residual) -> Block:
    """The attention, then the MLP, each with a residual connection of that kind."""
    return Block((("attention", attention), ("mlp", mlp)), residual)


def pre_norm(attention: Any, mlp: Any, norm: Norm, dropout: float = 0.0) -> Block:
    """x + attention(norm(x)), then x + mlp(norm(x))."""
    return sequential(attention, mlp, PreNorm(norm, dropout))


def parallel(attention: Any, mlp: Any, norm: Norm, *, norms: int = 1) -> Block:
    """x + attention(norm(x)) + mlp(norm(x)), with one norm for both (GPT-J, PaLM) or two (GPT-NeoX)."""
    parts = (("attention", attention), ("mlp", mlp))
    if norms == 1:
        return Block((("both", Parallel(parts)),), PreNorm(norm))
    return Block((("both", Parallel(parts, norms=norm)),), Plain())


def decoder(
    blocks: Sequence[Layer],
    *,
    d_model: int,
    vocab: int,
    norm: Norm | None,
    tied: bool,
    position: Learned | Sinusoidal | None = None,
    embed_norm: Norm | None = None,
    embed_scale: float = 1.0,
    dropout: float = 0.0,
    head: Head | None = None,
    init: Initializer = Normal(),
) -> LanguageModel:
    """A decoder-only model around its layers; `norm` is the final one."""
    embed = Embed(vocab, position, norm=embed_norm, scale=embed_scale, dropout=dropout, init=init)
    return language_model(
        Transformer(d_model, embed, Stack.of(blocks, norm=norm)), head or LMHead(vocab, init=init), tied
    )


def language_model(body: Transformer, head: Head, tied: bool) -> LanguageModel:
    """A tower that predicts tokens, whose head is the table of tokens if `tied`."""
    return LanguageModel(body, head, (("head/w", "body/embed/token"),) if tied else ())


def check_choices(k: float, experts: int) -> None:
    """Raise `UserError` for more choices of a token than there are experts."""
    if k > experts:
        raise UserError(f"model.k={k} exceeds model.experts={experts}: lower it")


def fine_experts(
    experts: int,
    expert: GatedMLP,
    k: int,
    shared: int = 0,
    *,
    shared_bias: bool = False,
    score: str = "sigmoid",
    groups: int = 1,
    kept_groups: int = 1,
    group_best: int = 2,
    normalize: bool = True,
    scale: float = 1.0,
    rate: float | None = 1e-3,
) -> MoE:
    """DeepSeek's experts: many narrow ones, of which a token takes `k`, from the `kept_groups` best of `groups` groups,
    a group being as good as its `group_best` best, beside `shared` that all tokens take, which are one as wide as all
    of them. The router begins as the experts do; the other knobs are its (`lm.model.moe.top_k.TopK`). Raises
    `UserError` for choices or groups that the experts do not give."""
    check_choices(k, experts)
    if groups < 1 or experts % groups:
        raise UserError(f"model.groups={groups} does not divide model.experts={experts}: choose a divisor")
    chosen = Groups(groups, kept_groups, group_best) if groups > 1 else None
    router = TopK(k, score, 1.0 if normalize else None, scale, rate, chosen, init=expert.init)
    always = dataclasses.replace(expert, d_ff=shared * expert.d_ff, bias=shared_bias) if shared else None
    return MoE(experts, expert, router, Dropless(), always)


def with_experts(model: LanguageModel, moe: MoE, layers: Collection[int]) -> LanguageModel:
    """That decoder with experts in the place of the MLP of some layers. Raises `UserError` for more choices than
    experts."""
    check_choices(moe.router.k, moe.experts)

    def sparse(block: Layer) -> Layer:
        assert isinstance(block, Block)
        *others, (name, _) = block.parts
        return dataclasses.replace(block, parts=(*others, (name, moe)))

    blocks = [sparse(b) if i in layers else b for i, b in enumerate(model.body.stack.blocks())]
    stack = Stack.of(blocks, norm=model.body.stack.norm)
    return dataclasses.replace(model, body=dataclasses.replace(model.body, stack=stack))


def layers_of(layer_types: Sequence[str], layers: int, pattern: int = 1, *, first: bool = False) -> tuple[str, ...]:
    """`layer_types` checked; if there are none, of `pattern` layers all but the last (or the `first`) are local."""
    turn = 0 if first else 1
    found = tuple(layer_types) or tuple(LOCAL if (i + turn) % pattern else GLOBAL for i in range(layers))
    wrong = set(found) - {GLOBAL, LOCAL}
    if len(found) != layers or wrong:
        what = f"holds {sorted(wrong)[0]!r}" if wrong else f"has {len(found)} entries for {layers} layers"
        raise UserError(f"layer_types {what}: give {GLOBAL!r} or {LOCAL!r} for each layer")
    return found


def layer_ties(stack: Stack, alias: str, owner: str, tower: str = "body") -> Ties:
    """Ties within each layer of a tower: both paths start at the layer."""
    layers = [f"{tower}/stack/{i}/{j}" for i, segment in enumerate(stack.segments) for j in range(len(segment.pattern))]
    return tuple((f"{layer}/{alias}", f"{layer}/{owner}") for layer in layers)
