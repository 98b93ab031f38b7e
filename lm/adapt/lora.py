"""LoRA: a frozen model and low-rank updates of its matrices (Hu et al. 2021, arXiv 2106.09685)."""

import dataclasses
import math
from typing import Any

import jax
import jax.numpy as jnp

from lm.core.component import component
from lm.core.errors import UserError
from lm.core.leaf import Leaf, dense, dot, leaf, take
from lm.core.param import Constant, FanIn, Normal, Param, Tree, initialize
from lm.core.transform import map_leaves, map_tensors, targets

Array = jax.Array


@leaf
class LowRank(Leaf):
    """base + scale * lora_a lora_b, base frozen."""

    base: Any  # [..., in, out]; may itself be a leaf
    lora_a: Any  # [..., in, rank]
    lora_b: Any  # [..., rank, out]
    scale: float = dataclasses.field(default=1.0, metadata={"static": True})

    @property
    def weight(self) -> Any:
        return self.base.weight if isinstance(self.base, Leaf) else self.base

    def dot(self, x: Array, transpose: bool) -> Array:
        frozen = dot(x, jax.lax.stop_gradient(self.base), transpose=transpose)
        down, up = (self.lora_b, self.lora_a) if transpose else (self.lora_a, self.lora_b)
        return frozen + self.scale * dot(dot(x, down, transpose=transpose), up, transpose=transpose)

    def take(self, ids: Array | int, dtype: Any) -> Array:
        low = self.scale * take(self.lora_a, ids, dtype) @ self.lora_b.astype(dtype)
        return take(jax.lax.stop_gradient(self.base), ids, dtype) + low

    def dense(self) -> Array:
        # In full float32 on every device: the sum may be what is exported.
        low = jnp.matmul(self.lora_a, self.lora_b, precision=jax.lax.Precision.HIGHEST)
        return dense(jax.lax.stop_gradient(self.base)) + self.scale * low


@component
class LoRA:
    """Freeze the model, and train a low-rank update of each chosen matrix: w + (alpha / rank) a b.

    a [in, rank] is random, with the variance of the authors' code, 1 / (3 in); b [rank, out] is zero, so that step 0 is
    the model as it was. Stacked layers and experts have an update each. There is no dropout of what a is multiplied by:
    a weight, which has no random key, is all that the transform touches.

    rank    width of the update
    alpha   alpha / rank multiplies it, so that another rank wants no other learning rate
    target  pattern of paths (`attention/[qv]/w`), tables too (`embed/token`); None: every matrix between features,
            which QLoRA (Dettmers et al. 2023, arXiv 2305.14314, section 4) needed to equal full fine-tuning
    """

    rank: int = 8
    alpha: float = 16.0
    target: str | None = None

    def __post_init__(self) -> None:
        if self.rank < 1 or not 0 < self.alpha < math.inf:
            raise UserError(f"LoRA with rank={self.rank}, alpha={self.alpha}: give a rank of 1 or more, alpha above 0")

    def spec(self, spec: Tree) -> Tree:
        chosen = targets("LoRA", self.target, spec, leaves=True)

        def one(path: str, tensor: Any) -> Any:
            return self._adapted(tensor, tensor) if path in chosen else tensor

        return map_tensors(one, spec)

    def init(self, spec: Tree, params: Tree, key: Array) -> Tree:
        chosen = targets("LoRA", self.target, spec, leaves=True)
        added = map_tensors(lambda path, tensor: self._adapted(tensor, None) if path in chosen else None, spec)
        fresh = initialize(added, key)

        def one(path: str, tensor: Any, value: Any, new: Any) -> Any:
            return dataclasses.replace(new, base=value) if path in chosen else value

        return map_tensors(one, spec, params, fresh)

    def _adapted(self, tensor: Any, base: Any) -> LowRank:
        """A leaf of `Param`s for the tensor, with this base."""
        p: Param = tensor.weight if isinstance(tensor, Leaf) else tensor
        (*lead, rows, columns), (*axes, above, beside) = p.shape, p.axes
        # What looks up rows multiplies by a vector with a single 1, whose fan-in is 1.
        first = Normal(3**-0.5) if above in ("vocab", "position") else FanIn(1 / 3)
        a = Param((*lead, rows, self.rank), (*axes, above, None), first)
        b = Param((*lead, self.rank, columns), (*axes, None, beside), Constant(0.0))
        return LowRank(base, a, b, self.alpha / self.rank)

    def trainable(self, path: str, p: Param) -> bool:
        return path.endswith(("/lora_a", "/lora_b"))

    def merge(self, params: Tree) -> Tree:
        """The sums, in float32 also where the base is int8."""
        return map_leaves(LowRank, lambda x: x.dense(), params)
