"""The router protocol: to which experts a token goes, and with what weights. The routers are in `lm.model.moe.top_k`.

Shapes: B batch, S tokens of a row, D model width, E experts, k choices per token.
"""

import abc
from typing import ClassVar, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from lm.core.ctx import Ctx
from lm.core.errors import UserError
from lm.core.param import Tree
from lm.model.moe.slots import SlotRouting
from lm.model.moe.stats import RouterStats

Array = jax.Array


class Routing(NamedTuple):
    """Where the tokens of a batch go."""

    weights: Array  # [B, S, k] float32: of each choice in a token's sum
    experts: Array  # [B, S, k] int32: the choices, first ones first
    valid: Array  # [B, S, k] bool: choices to be served; none of padding
    stats: RouterStats
    logits: Array | None = None  # [B, S, E] float32: what the router's scores were made of, where it has scores

    @classmethod
    def of(
        cls, weights: Array, experts: Array, probs: Array, logits: Array, valid: Array, **more: Array | None
    ) -> "Routing":
        """The routing of these choices [B, S, k], with statistics of the router's probs and logits [B, S, E]. `valid`:
        bool [B, S], or [B, S, k] where a token may use fewer than k; `more`: further statistics."""
        served = jnp.broadcast_to(valid if valid.ndim == 3 else valid[..., None], experts.shape)
        return cls(weights, experts, served, RouterStats.of(experts, served, probs, logits, **more), logits)


class Router(abc.ABC):
    """The router protocol. A router is a component, and scores in float32 whatever the compute dtype.

    What it makes of a token depends on that token's row alone: else microbatches and pipelines would route otherwise
    than a whole batch. Its losses are those of its statistics (`RouterStats.losses`), which the objective weighs by
    their names and adds.

    gives: what it returns, which the dispatch must take;
    ahead: whether a token's experts depend, in evaluation, on tokens that follow it"""

    gives: ClassVar[type] = Routing
    ahead: ClassVar[bool] = False

    @property
    @abc.abstractmethod
    def k(self) -> float:
        """Experts that a token goes through, on average; inf: all of them."""

    @abc.abstractmethod
    def spec(self, d: int, experts: int) -> Tree:
        """Its parameters for tokens of width d. Raises `UserError` where so few experts do not suffice."""

    @abc.abstractmethod
    def __call__(self, p: Tree, x: Array, valid: Array, experts: int, ctx: Ctx) -> Routing | SlotRouting:
        """Tokens x [B, S, D] to their choices among so many experts. Those that are not valid, bool [B, S], count in no
        statistic."""

    def update(self, p: Tree, stats: RouterStats) -> Tree:
        """Move its buffers after a step, given the statistics of the whole batch."""
        return p

    def among(self, experts: tuple[int, ...], number: int) -> "Router":
        """The router of a model in which only these of so many experts are left."""
        return self

    def kept(self, p: Tree, experts: tuple[int, ...]) -> Tree:
        """Its parameters where only these experts are left. Raises `UserError` for a router that needs them all."""
        raise UserError(f"{type(self).__name__} cannot do with some of its experts: prune a model with another router")


def of_experts(p: Tree, experts: tuple[int, ...]) -> Tree:
    """Parameters [..., E] of these experts alone."""
    return {name: x[..., np.array(experts)] for name, x in p.items()}


def check_choices(k: int, experts: int) -> None:
    """Raise `UserError` where a token would choose more experts than there are."""
    if k > experts:
        raise UserError(f"router.k={k} exceeds experts={experts}: lower k")
