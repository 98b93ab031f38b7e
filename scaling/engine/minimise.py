"""The minimum of a sum of Huber losses, from many starts or for many resamples at once.

Quasi-Newton stalls on Huber's kinks and stops early where delta makes the gradients small, which is how the published
constants of Hoffmann et al. 2022 came out wrong (Besiroglu et al. 2024). A Huber sum is a least-squares sum whose
weights depend on the residuals, so Levenberg-Marquardt with those weights (iteratively reweighted least squares)
descends it without a tolerance in the unit of the objective. It nears the minimum linearly; a few points are then
brought to it quadratically, with the exact second derivatives beside (`exact`).
"""

import functools
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import NDArray

from ..laws import Array
from .identify import points_of
from .space import Space

BATCH = 64  # problems advanced together: their Jacobians stay in a core's cache
STRIDE = 8  # steps between which finished problems make room for waiting ones
MAX_STEPS = 500
THREADS = min(os.cpu_count() or 1, 8)
MAX_DAMPING = 1e10


@dataclass(frozen=True)
class Pull:
    """A term strength / 2 (value + slope . x + x bend x / 2)^2, x = point - about, added to each problem's objective:
    about and slope [problems, free], bend [problems, free, free], value and strength [problems]. It holds what has that
    expansion near zero, as profiles need."""

    about: Array
    value: Array
    slope: Array
    bend: Array
    strength: Array

    @classmethod
    def none(cls, problems: int, free: int) -> "Pull":
        nothing = np.zeros((problems, free, free))
        return cls(nothing[..., 0], nothing[:, 0, 0], nothing[..., 0], nothing, nothing[:, 0, 0])

    def __call__(self, points: Array) -> Array:
        """The terms [problems] at points [problems, free]."""
        x = points - self.about
        off = self.value + np.einsum("pf,pf->p", self.slope, x) + 0.5 * np.einsum("pf,pfg,pg->p", x, self.bend, x)
        return self.strength / 2 * off**2


def huber(r: Any, delta: Any, minimum: Callable = np.minimum) -> Any:
    """r^2 / 2 up to |r| = delta, then the straight line delta (|r| - delta / 2) that continues it smoothly."""
    curved = minimum(abs(r), delta)
    return curved * (abs(r) - 0.5 * curved)


class _Problem(NamedTuple):
    """What one minimum is of, or a batch of them with a leading axis."""

    weights: Any  # [runs]
    target: Any  # [runs], in the space of the law's residual
    about: Any  # [free], and so on: see `Pull`
    value: Any
    slope: Any
    bend: Any
    strength: Any


class _State(NamedTuple):
    point: Any  # [free]
    value: Any
    gradient: Any  # [free]
    hessians: Any  # [kinds, free, free]: of the weighted squares and, if `exact`, the true one
    damping: Any
    steps: Any
    going: Any


def minimise(
    space: Space[Any],
    inputs: Sequence[Array],
    target: Array,
    starts: Array,
    *,
    delta: float,
    tolerance: float,
    weights: Array | None = None,
    pull: Pull | None = None,
    exact: bool = False,
) -> tuple[Array, Array]:
    """Minima [problems, free] and their objectives [problems] from `starts` [problems, free]. `target` is [runs], or
    [problems, runs]; so are the `weights` of the runs (default one). A problem ends when a step gains less than
    `tolerance` of its objective. Objectives count no `pull`."""
    count, free = starts.shape
    runs = len(inputs[0])
    filled = [(0, 0), (0, _rounded(runs) - runs)]  # with copies of a run that have no weight
    shape = (count, runs)
    goal = np.log(target) if space.law.residual == "log" else np.asarray(target, np.float64)
    pull = pull or Pull.none(count, free)
    problems = _Problem(
        np.pad(np.broadcast_to(1.0 if weights is None else weights, shape), filled),
        np.pad(np.broadcast_to(goal, shape), filled, mode="edge"),
        *(pull.about, pull.value, pull.slope, pull.bend, pull.strength),
    )
    known, which = _shared(tuple(np.pad(v, filled[1], mode="edge") for v in inputs))
    advance = functools.partial(_advance, space, exact, known, which, float(delta), float(tolerance))
    points, values = np.array(starts, np.float64), np.full(count, np.inf)
    batch = min(BATCH, 1 << (count - 1).bit_length())  # small sets need no full one
    parts = np.array_split(np.arange(count), min(THREADS, -(-count // batch)))
    with ThreadPoolExecutor(THREADS) as pool:
        list(pool.map(lambda part: _drain(advance, batch, part, problems, points, values, 1 + exact), parts))
    return points, values - pull(points)


def _shared(inputs: tuple[Array, ...]) -> tuple[tuple[Array, ...], NDArray[np.intp] | None]:
    """The points at which a law is to be asked, and which of them is each run's (None: its own): seeds, and grids of
    learning rates, are many runs of few points."""
    which = points_of(inputs)
    points = int(which.max()) + 1
    if points > len(which) // 2:
        return inputs, None
    _, first = np.unique(which, return_index=True)
    return tuple(np.pad(v[first], (0, _rounded(points) - points), mode="edge") for v in inputs), which


def _rounded(runs: int) -> int:
    """A number of runs not much larger, of few: one program then serves what is left when some are held out."""
    unit = max(1 << (runs - 1).bit_length() - 2, 4)
    return -(-runs // unit) * unit


def _drain(
    advance: Callable,
    batch: int,
    queue: NDArray[np.intp],
    problems: _Problem,
    points: Array,
    values: Array,
    kinds: int,
) -> None:
    """Bring the problems of the `queue` to their minima, `batch` at a time: a finished one gives its place to the
    next. Writes `points` and `values`."""
    waiting = queue.tolist()[::-1]
    slots = np.full(batch, -1)  # the problem in each place, or none
    state = _fresh(np.zeros((batch, points.shape[1])), kinds)
    with jax.enable_x64(True):
        while waiting or (slots >= 0).any():
            new = np.flatnonzero(slots < 0)[: len(waiting)]
            slots[new] = [waiting.pop() for _ in new]
            for field, first in zip(state, _fresh(points[slots[new]], kinds), strict=True):
                field[new] = first
            state.going[slots < 0] = False
            data = _Problem(*(v[np.maximum(slots, 0)] for v in problems))
            state = _State(*(np.array(v) for v in advance(state, data)))
            done = np.flatnonzero((slots >= 0) & ~state.going)
            points[slots[done]], values[slots[done]], slots[done] = state.point[done], state.value[done], -1


def _fresh(points: Array, kinds: int) -> _State:
    """States of objectives not yet known: the first step stays where it is."""
    count, free = points.shape
    return _State(
        point=points,
        value=np.full(count, np.inf),
        gradient=np.zeros((count, free)),
        hessians=np.tile(np.eye(free), (count, kinds, 1, 1)),
        damping=np.full(count, 1e-2),
        steps=np.zeros(count, np.int64),
        going=np.ones(count, bool),
    )


@functools.partial(jax.jit, static_argnums=(0, 1))
def _advance(
    space: Space[Any],
    exact: bool,
    inputs: tuple,
    which: Any,
    delta: Any,
    tolerance: Any,
    state: _State,
    problems: _Problem,
) -> _State:
    """`STRIDE` steps of every problem that still goes."""
    residual = jnp.log if space.law.residual == "log" else jnp.asarray

    def one(state: _State, problem: _Problem) -> _State:
        weights, target, about, aim, slope, bend, strength = problem

        def predicted(point: Any) -> tuple[Any, Any]:
            found = residual(space.build(point, jnp.exp).predict(*inputs))  # [points]
            return found, found

        def of_runs(values: Any) -> Any:
            return values if which is None else values[which]

        def objective(point: Any) -> Any:
            return jnp.sum(weights * huber(of_runs(predicted(point)[0]) - target, delta, jnp.minimum))

        def evaluate(point: Any) -> tuple[Any, Any, Any]:
            jac, found = (of_runs(v) for v in jax.jacfwd(predicted, has_aux=True)(point))  # [runs, free], [runs]
            r = found - target
            # Huber(r) has the gradient of w r^2 / 2 with w = min(1, delta / |r|)
            weighted = jac * (weights / jnp.maximum(jnp.abs(r) / delta, 1.0))[:, None]
            kinds = [weighted.T @ jac, *([jax.hessian(objective)(point)] if exact else [])]
            x = point - about
            off, direction = aim + slope @ x + 0.5 * x @ bend @ x, slope + bend @ x
            value = jnp.sum(weights * huber(r, delta, jnp.minimum)) + 0.5 * strength * off**2
            gradient = weighted.T @ r + strength * off * direction
            return value, gradient, jnp.stack(kinds) + strength * jnp.outer(direction, direction)

        diagonal = jnp.diagonal(state.hessians[0])
        # The second term keeps the matrix regular where a term of the law has died out and its derivatives are zero.
        ridge = state.damping * diagonal + 1e-12 * diagonal.sum()
        gradients = jnp.broadcast_to(state.gradient, (len(state.hessians), len(ridge)))[..., None]
        trials = state.point - jnp.linalg.solve(state.hessians + jnp.diag(ridge), gradients)[..., 0]
        # A wild trial step may overflow; its objective is then inf or nan, and it is refused.
        ends = jax.vmap(evaluate)(trials)
        best = jnp.argmin(jnp.where(jnp.isnan(ends[0]), jnp.inf, ends[0]))
        point, (value, gradient, hessians) = trials[best], (v[best] for v in ends)
        better = value < state.value  # False for nan
        gain = jnp.where(better, state.value - value, jnp.inf)
        damping = jnp.maximum(state.damping * jnp.where(better, 0.3, 4.0), 1e-10)
        point, value, gradient, hessians = (
            jnp.where(better, new, old)
            for new, old in (
                (point, state.point),
                (value, state.value),
                (gradient, state.gradient),
                (hessians, state.hessians),
            )
        )
        # Done when a step gains nothing to speak of, relative to the objective, or when no step however short gains.
        going = (gain > tolerance * value) & (damping < MAX_DAMPING) & (state.steps < MAX_STEPS)
        moved = _State(point, value, gradient, hessians, damping, state.steps + 1, going)
        return jax.tree.map(lambda new, old: jnp.where(state.going, new, old), moved, state)

    def stride(_: Any, state: _State) -> _State:
        return jax.vmap(one)(state, problems)

    return jax.lax.fori_loop(0, STRIDE, stride, state)
