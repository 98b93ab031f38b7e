"""A change of width within a stack."""

from typing import Any, ClassVar

import jax

from lm.core.component import component
from lm.core.ctx import Ctx, constrain
from lm.core.param import Initializer, Normal, Tree
from lm.model.layers import Norm, linear, linear_spec

Array = jax.Array


@component
class Resize:
    """Stands among a stack's segments: x [B, S, D] is normed and mapped to [B, S, width]; what follows, final norm and
    head included, has that width (ERNIE 3.0's task networks, Sun et al. 2021, arXiv 2107.02137; CodeT5+'s encoder, Wang
    et al. 2023, 2305.07922)."""

    pattern: ClassVar[tuple] = ()  # as a segment without layers
    repeats: ClassVar[int] = 1
    layers: ClassVar[int] = 0
    tied: ClassVar[bool] = True

    width: int
    norm: Norm | None = None
    bias: bool = False
    init: Initializer = Normal()

    def spec(self, d: int) -> Tree:
        spec = linear_spec((d, self.width), ("embed", None), self.bias, self.init)
        return spec | ({"norm": self.norm.spec(d)} if self.norm else {})

    def __call__(self, p: Tree, x: Array, ctx: Ctx, cache: list | None, first: Any = 0) -> tuple[Array, list, Tree]:
        x = self.norm(p["norm"], x) if self.norm else x
        return constrain(linear(p, x), ctx, "batch", "seq", "embed"), [], {}

    def update(self, p: Tree, aux: Tree) -> Tree:
        return p
