"""Residual wirings. A wiring owns what is carried from sub-layer to sub-layer: `enter` makes the carry from the
embedding, `__call__` passes it through one sub-layer f (x -> (y, cache)), `leave` turns it into the stack's output,
given the stack's final norm.
"""

from collections.abc import Callable
from typing import Any

import jax

from lm.core.component import component
from lm.core.ctx import Ctx, dropout
from lm.core.param import Tree
from lm.model.layers import Norm

Array = jax.Array
Carry = Any
Inner = Callable[[Array], tuple[Array, Tree]]
FinalNorm = Callable[[Array], Array]


def _times(scale: float, y: Array) -> Array:
    return y if scale == 1 else y * scale


class SingleStream:
    """The carry is one array [B, S, D], and the final norm acts on it."""

    def enter(self, x: Array) -> Carry:
        return x

    def leave(self, carry: Carry, norm: FinalNorm) -> Array:
        return norm(carry)


@component
class Plain(SingleStream):
    """x + scale * f(x); for sub-layers that norm their own inputs (parallel blocks)."""

    dropout: float = 0.0
    scale: float = 1.0

    def spec(self, d: int) -> Tree:
        return {}

    def __call__(self, p: Tree, carry: Carry, f: Inner, ctx: Ctx) -> tuple[Carry, Tree]:
        y, cache = f(carry)
        return carry + dropout(_times(self.scale, y), self.dropout, ctx, "residual"), cache


@component
class PreNorm(SingleStream):
    """x + scale * f(norm(x)) (GPT-2; Xiong et al. 2020, arXiv 2002.04745); with `normed` norm(x) + scale * f(norm(x))
    (BLOOM's apply_residual_connection_post_layernorm). A `scale` below 1 keeps deep stacks transferable (Tensor
    Programs VI, Yang et al. 2023, arXiv 2310.02244; Granite)."""

    norm: Norm
    dropout: float = 0.0
    normed: bool = False
    scale: float = 1.0

    def spec(self, d: int) -> Tree:
        return self.norm.spec(d)

    def __call__(self, p: Tree, carry: Carry, f: Inner, ctx: Ctx) -> tuple[Carry, Tree]:
        x = self.norm(p, carry)
        y, cache = f(x)
        return (x if self.normed else carry) + dropout(_times(self.scale, y), self.dropout, ctx, "residual"), cache


@component
class PostNorm(SingleStream):
    """norm(alpha x + f(x)) (Vaswani et al. 2017); alpha > 1 is DeepNorm (Wang et al. 2022, arXiv 2203.00555)."""

    norm: Norm
    alpha: float = 1.0
    dropout: float = 0.0

    def spec(self, d: int) -> Tree:
        return self.norm.spec(d)

    def __call__(self, p: Tree, carry: Carry, f: Inner, ctx: Ctx) -> tuple[Carry, Tree]:
        y, cache = f(carry)
        return self.norm(p, self.alpha * carry + dropout(y, self.dropout, ctx, "residual")), cache


@component
class Sandwich(SingleStream):
    """x + scale * norm(f(norm(x))) (CogView, Ding et al. 2021, arXiv 2105.13290; Gemma 2); without `before` x + scale *
    norm(f(x)) (Swin 2; OLMo 2, arXiv 2501.00656)."""

    before: Norm | None
    after: Norm
    dropout: float = 0.0
    scale: float = 1.0

    def spec(self, d: int) -> Tree:
        return ({"before": self.before.spec(d)} if self.before else {}) | {"after": self.after.spec(d)}

    def __call__(self, p: Tree, carry: Carry, f: Inner, ctx: Ctx) -> tuple[Carry, Tree]:
        y, cache = f(self.before(p["before"], carry) if self.before else carry)
        y = _times(self.scale, self.after(p["after"], y))
        return carry + dropout(y, self.dropout, ctx, "residual"), cache


@component
class ResiDual:
    """Two streams: one post-normed, which feeds the sub-layers, and one that only adds up their outputs; the result is
    the first plus the norm of the second (Xie et al. 2023, arXiv 2304.14802)."""

    norm: Norm
    dropout: float = 0.0

    def spec(self, d: int) -> Tree:
        return self.norm.spec(d)

    def enter(self, x: Array) -> Carry:
        return x, x

    def leave(self, carry: Carry, norm: FinalNorm) -> Array:
        return carry[0] + norm(carry[1])

    def __call__(self, p: Tree, carry: Carry, f: Inner, ctx: Ctx) -> tuple[Carry, Tree]:
        post, dual = carry
        y, cache = f(post)
        y = dropout(y, self.dropout, ctx, "residual")
        return (self.norm(p, post + y), dual + y), cache


Residual = Plain | PreNorm | PostNorm | Sandwich | ResiDual
