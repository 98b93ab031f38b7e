"""How much memory a train step needs, before it is compiled, and what to do where there is too little."""

import contextlib
import math
from collections.abc import Iterator
from typing import Any, NamedTuple

import jax
from jax.extend import core as jex

from lm.core.ctx import Ctx
from lm.core.errors import UserError
from lm.core.param import Tree, combine
from lm.parallel.pipeline import Pipelined
from lm.train.state import State
from lm.train.step import Trainer

REMEDY = (
    "lower config.data.batch_size or config.data.length, raise config.train.accumulate, set config.train.remat=full, "
    "or spread the state over more devices (config.mesh.fsdp)"
)
NEAR = 0.9  # share of the memory from which on a run is warned


class Footprint(NamedTuple):
    """Bytes on each device. What a step holds beside these (sums of gradients, scratch space) is not counted: runs need
    somewhat more. Activations are an upper bound where the compiler recomputes some of them or, with a mesh, divides
    them by more than the rows."""

    state: int  # parameters, optimizer state, average
    gradients: int
    batch: int
    activations: int  # that the forward pass of a microbatch keeps for the backward pass

    @property
    def total(self) -> int:
        return sum(self)

    @property
    def least(self) -> int:
        """Below which no compiler gets."""
        return self.state + self.gradients + self.batch + self.activations // 2

    def __str__(self) -> str:
        parts = ", ".join(f"{name} {readable(size)}" for name, size in zip(self._fields, self, strict=True))
        return f"{readable(self.total)} a device ({parts})"


def readable(size: float) -> str:
    for unit, power in (("TiB", 40), ("GiB", 30), ("MiB", 20)):
        if size >= 2**power:
            return f"{size / 2**power:,.1f} {unit}"
    return f"{size / 2**10:,.1f} KiB"


def footprint(trainer: Trainer, state: State, batch: dict[str, jax.ShapeDtypeStruct]) -> Footprint:
    """Of a step on an abstract state (`Trainer.abstract`) and a batch of these global shapes."""
    weights, _ = trainer.optimizer.split(state.params)
    rows, tokens, layers = (1 if (s := trainer.sharding) is None else s.ways(n) for n in ("batch", "seq", "layers"))
    return Footprint(
        sum(map(_bytes_here, jax.tree.leaves(state))),
        sum(map(_bytes_here, jax.tree.leaves(weights))),
        sum(map(_bytes, batch.values())) // rows,
        int(saved_activations(trainer, state, batch) * _share(trainer) / (rows * tokens * layers)),
    )


def _share(trainer: Trainer) -> float:
    """Of what a forward pass saves, that which is there at once: a pipeline goes through a batch in parts."""
    walk, sharding = trainer.execution.walk, trainer.sharding
    if not isinstance(walk, Pipelined) or (order := walk.order(sharding)).stages == 1:
        return 1.0
    return walk.kept(order) / order.items


def saved_activations(trainer: Trainer, state: State, batch: dict[str, jax.ShapeDtypeStruct]) -> int:
    """Bytes that differentiating the loss of one microbatch saves, over all devices."""
    return sum(map(_bytes, saved_values(trainer, state, batch)))


def saved_values(trainer: Trainer, state: State, batch: dict[str, jax.ShapeDtypeStruct]) -> list[Any]:
    """What that is, as abstract arrays: the values that the loss's linearised form closes over, but for parameters,
    batch and what waits in the host's memory."""
    weights, rest = trainer.optimizer.split(state.params)
    rows = next(iter(batch.values())).shape[0] // trainer.accumulate
    part = {k: jax.ShapeDtypeStruct((rows, *x.shape[1:]), x.dtype) for k, x in batch.items()}
    cache = [] if state.memory is None else [jax.tree.map(lambda x: _rows(x, trainer.accumulate), state.memory)]

    def saved(weights: Tree, rest: Tree, part: dict, key: jax.Array, cache: list) -> Any:
        def total(weights: Tree) -> jax.Array:
            ctx = Ctx(key=key, execution=trainer.execution)
            return trainer.objective(trainer.model, combine(weights, rest), part, ctx, trainer.dtype, *cache).total

        return jax.vjp(total, weights)[1]

    weights, rest = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), (weights, rest))
    jaxpr = jax.make_jaxpr(saved)(weights, rest, part, jax.random.key(0), cache).jaxpr
    given = set(jaxpr.invars)
    kept = dict.fromkeys(v for v in jaxpr.outvars if not isinstance(v, jex.Literal) and v not in given)
    return [v.aval for v in kept if v.aval.memory_space == jax.memory.Space.Device]


def _rows(x: Any, parts: int) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct((x.shape[0] // parts, *x.shape[1:]), x.dtype)


def _bytes(x: Any) -> int:
    return math.prod(x.shape) * x.dtype.itemsize


def _bytes_here(x: jax.ShapeDtypeStruct) -> int:
    shape = x.shape if x.sharding is None else x.sharding.shard_shape(x.shape)
    return math.prod(shape) * x.dtype.itemsize


def needed(analysis: Any) -> int:
    """Bytes on each device by what the compiler says (`Compiled.memory_analysis`); 0 where it says nothing."""
    if analysis is None:
        return 0
    # Donated arguments and the results that take their place share memory ("alias").
    named = ("argument_size", "output_size", "temp_size", "generated_code_size")
    return sum(getattr(analysis, f"{name}_in_bytes") for name in named) - analysis.alias_size_in_bytes


def check_exact(size: int, limit: int | None) -> None:
    """Raise `UserError` where a compiled step needs more than a device has."""
    if limit is not None and size > limit:
        raise UserError(
            f"the compiled train step needs {readable(size)} a device, and there are {readable(limit)}: {REMEDY}"
        )


def check_room(needed: Footprint, limit: int | None) -> str:
    """A warning where a step comes near to the memory of a device ("" where it does not); raises `UserError` where it
    surely needs more."""
    if limit is None or needed.total < NEAR * limit:
        return ""
    if needed.least > limit:
        raise UserError(f"this run needs about {needed}, and there are {readable(limit)}: {REMEDY}")
    return f"this run needs about {needed} of {readable(limit)}, and may not fit: if it does not, {REMEDY}"


@contextlib.contextmanager
def allocating(what: str) -> Iterator[None]:
    """Tell in one line of memory that was not to be had for `what`."""
    try:
        yield
    except MemoryError as e:
        raise UserError(f"out of memory in {what} ({e or 'of this machine'}): {REMEDY}") from e
    except jax.errors.JaxRuntimeError as e:
        if "RESOURCE_EXHAUSTED" not in str(e):
            raise
        reason = " ".join(str(e).removeprefix("RESOURCE_EXHAUSTED:").split())[:160]
        raise UserError(f"out of memory in {what} ({reason}): {REMEDY}") from e
