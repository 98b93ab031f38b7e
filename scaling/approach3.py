"""Fit a law to runs of any shape: approach 3 of Hoffmann et al. 2022 (section 3.3), for any `scaling.laws.Law`.

The objective is theirs: the sum over runs of Huber_delta(log L_predicted - log L).

The optimizer is not. Quasi-Newton stalls on Huber's kinks and stops early where delta makes the gradients
small, which is how the published constants came out wrong (Besiroglu et al. 2024). A Huber sum is a
least-squares sum whose weights depend on the residuals, so Levenberg-Marquardt with those weights
(iteratively reweighted least squares) needs no tolerance in the unit of the objective, and one batch of small
float64 solves carries every start, or every bootstrap resample, at once.
"""

import functools
from collections.abc import Callable, Sequence
from dataclasses import astuple, dataclass, fields
from typing import Any, Generic

import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import ArrayLike, NDArray

from lm.core.errors import UserError

from .laws import POSITIVE, Array, L

FAR_STARTS = 2  # of each bootstrap resample, besides the fit itself
# Share of their spread that runs must have off a line in log N, log D: else one term can stand for the other.
APART = 0.03
MAX_STEPS = 500
PROBLEMS = 128  # solved at once: one program serves fits and bootstraps of the same runs


@dataclass(frozen=True)
class Fit(Generic[L]):
    """A fitted law; the sum of Huber losses there; how many of `starts` came within 0.1 % of that sum."""

    law: L
    objective: float
    delta: float
    runs: int
    starts: int
    reached: int


def huber(r: Any, delta: float, minimum: Callable = np.minimum) -> Any:
    """r^2 / 2 up to |r| = delta, then the straight line delta (|r| - delta / 2) that continues it smoothly."""
    curved = minimum(abs(r), delta)
    return curved * (abs(r) - 0.5 * curved)


def objective(law: L, inputs: Sequence[ArrayLike], loss: ArrayLike, delta: float = 1e-3) -> float:
    """The sum over runs of Huber_delta of the error in log loss: what `fit` minimises, for comparing any two
    laws."""
    predicted = law.loss(*(np.asarray(v, np.float64) for v in inputs))
    return float(huber(np.log(predicted) - np.log(np.asarray(loss, np.float64)), delta).sum())


def fit(
    law: type[L],
    inputs: Sequence[ArrayLike],
    loss: ArrayLike,
    *,
    delta: float = 1e-3,
    starts: int = 128,
    seed: int = 0,
) -> Fit[L]:
    """The best law found from `starts` random starts. `inputs` are what `law.reads` names, as arrays [runs], and so is
    `loss`, all positive.

    Raises `UserError` for runs that cannot determine the constants: too few, or with N and D that cannot be told
    apart.
    """
    data = _Runs(law, inputs, loss)
    data.check_identified()
    p, value = data.minimise(data.random_starts(np.random.default_rng(seed), starts), None, delta)
    best = int(np.argmin(value))
    # Noise-free runs end at rounding error, where 0.1 % means nothing: residuals of delta / 1e5 also count as
    # zero.
    reached = int(np.sum(value <= 1.001 * value[best] + 0.5e-10 * data.runs * delta**2))
    found = law(*(float(v) for v in astuple(data.law(p[best]))))  # type: ignore[call-overload]
    return Fit(found, objective(found, inputs, loss, delta), delta, data.runs, starts, reached)


def bootstrap(
    inputs: Sequence[ArrayLike],
    loss: ArrayLike,
    fitted: Fit[L],
    *,
    resamples: int = 100,
    groups: ArrayLike | None = None,
    seed: int = 0,
) -> L | None:
    """Refit runs drawn with replacement; returns the laws as one law of arrays [resamples].

    Each resample starts from the fit and from `FAR_STARTS` random points. `groups` [runs] names the training
    run that a row belongs to when several rows are checkpoints of one: those are drawn together, since alone
    they would make the intervals far too narrow. A draw that lacks the points to determine the law is drawn again;
    None where no other draw than the runs themselves has them (see `nothing_free`).
    """
    data = _Runs(type(fitted.law), inputs, loss)
    rng = np.random.default_rng(seed)
    _, group = np.unique(np.arange(data.runs) if groups is None else np.asarray(groups), return_inverse=True)
    count = int(group.max()) + 1
    if max(data.points(group != g) for g in range(count)) < data.fewest:
        return None
    weights = np.empty((resamples, data.runs))
    for i in range(resamples):
        while True:
            weights[i] = rng.multinomial(count, np.full(count, 1 / count))[group]
            if data.points(weights[i] > 0) >= data.fewest:
                break
    own = np.tile(data.coordinates(fitted.law), (resamples, 1))
    p0 = np.concatenate([own, data.random_starts(rng, FAR_STARTS * resamples)])
    p, value = data.minimise(p0, np.tile(weights, (1 + FAR_STARTS, 1)), fitted.delta)
    best = np.argmin(value.reshape(-1, resamples), axis=0)
    return data.law(p.reshape(-1, resamples, len(data.names))[best, np.arange(resamples)].T)


def nothing_free(law: type[L]) -> str:
    """What to say where `bootstrap` found no other draw."""
    named = " and ".join(law.reads)
    return (
        f"no intervals: without any one of its runs the law has fewer than {fewest(law)} pairs of {named}, so that "
        "nothing is free to vary; more runs show how far to trust it"
    )


def fewest(law: type[L]) -> int:
    """Distinct points that the runs must have: one more than the law has constants."""
    return len(fields(law)) + 1  # type: ignore[arg-type]


@dataclass(frozen=True)
class Line:
    """The straight line through runs in log N and log D, D ~ N^slope: within what `factor` of it they all lie in D (or
    in N, where it is steep), and what `share` of their spread along it that is."""

    slope: float
    factor: float
    share: float


def line_of(N: ArrayLike, D: ArrayLike) -> Line:
    xy = np.log(np.stack([N, D], axis=1).astype(np.float64))
    xy -= xy.mean(axis=0)
    _, _, ((along, up), across) = np.linalg.svd(xy, full_matrices=False)
    off, spread = np.ptp(xy @ across), np.ptp(xy @ [along, up])
    slope = float(up / along) if along else np.inf
    return Line(slope, float(np.exp(off / np.abs(across).max())), float(off / spread) if spread else 0.0)


class _Runs(Generic[L]):
    """Runs and the law to fit to them, whose constants are searched in `coordinates`: the logarithms of positive
    ones."""

    def __init__(self, law: type[L], inputs: Sequence[ArrayLike], loss: ArrayLike):
        self.kind = law
        self.names = [f.name for f in fields(law)]  # type: ignore[arg-type]
        self.inputs = tuple(np.asarray(v, np.float64) for v in inputs)
        self.loss = np.asarray(loss, np.float64)
        self.runs, self.fewest = len(self.loss), fewest(law)
        self.logs = tuple(law.bounds[name] == POSITIVE for name in self.names)
        _, self.point_ids = np.unique(np.stack(self.inputs, axis=1), axis=0, return_inverse=True)

    def law(self, p: Any) -> L:
        """The law of coordinates [constants] or [constants, ...]."""
        return _law(self.kind, self.logs, p)

    def coordinates(self, law: L) -> Array:
        """[..., constants]"""
        values = astuple(law)  # type: ignore[call-overload]
        return np.stack([np.log(v) if log else v for v, log in zip(values, self.logs, strict=True)], axis=-1)

    def random_starts(self, rng: np.random.Generator, count: int) -> Array:
        return self.coordinates(self.kind.starts(rng, count, self.loss, *self.inputs))

    def points(self, some: NDArray[np.bool_]) -> int:
        """How many distinct points these runs have."""
        return len(np.unique(self.point_ids[some]))

    def minimise(self, starts: Array, weights: Array | None, delta: float) -> tuple[Array, Array]:
        """Minima [P, constants] and their objectives [P] from as many starts, under weights [P, runs] of the runs."""
        weights = np.ones((len(starts), self.runs)) if weights is None else weights
        found = []
        with jax.enable_x64(True):
            for i in range(0, len(starts), PROBLEMS):
                p, w = starts[i : i + PROBLEMS], weights[i : i + PROBLEMS]
                filled = np.resize(p, (PROBLEMS, p.shape[1])), np.resize(w, (PROBLEMS, w.shape[1]))
                ends = _levenberg_marquardt(self.kind, self.logs, *filled, self.inputs, np.log(self.loss), delta)
                found.append([np.asarray(v)[: len(p)] for v in ends])
        return np.concatenate([p for p, _ in found]), np.concatenate([value for _, value in found])

    def check_identified(self) -> None:
        named = " and ".join([", ".join(self.names[:-1]), self.names[-1]])
        if self.runs < self.fewest:
            raise UserError(f"{self.runs} runs cannot determine {named}; this law needs {self.fewest} or more")
        for name, v in zip(self.kind.reads, self.inputs, strict=True):
            if (distinct := len(np.unique(v))) < 3:
                raise UserError(f"the runs have {distinct} distinct {name}; an exponent needs three or more")
        if self.kind.reads[:2] == ("params", "tokens"):
            self._check_apart(*self.inputs[:2])
        if (points := len(np.unique(self.point_ids))) < self.fewest:
            pairs = " and ".join(self.kind.reads)
            raise UserError(
                f"the runs have {points} distinct pairs of {pairs}, which cannot determine {named}; this law needs "
                f"{self.fewest} or more"
            )

    def _check_apart(self, N: Array, D: Array) -> None:
        line = line_of(N, D)
        if line.share < APART:
            like = " (one compute budget)" if abs(line.slope + 1) < 0.02 else ""
            if abs(line.slope - 1) < 0.02:
                like = f" (one ratio D/N = {np.exp(np.mean(np.log(D / N))):.3g})"
            raise UserError(
                f"N and D cannot be told apart: all runs lie within a factor of {line.factor:.3g} of D ~ "
                f"N^{line.slope:.2f}{like}; add runs with other D at the same N"
            )


def _law(kind: type[L], logs: Sequence[bool], p: Any, exp: Callable = np.exp) -> L:
    return kind(*(exp(v) if log else v for v, log in zip(p, logs, strict=True)))  # type: ignore[call-overload]


@functools.partial(jax.jit, static_argnums=(0, 1))
def _levenberg_marquardt(
    kind: type[L], logs: tuple[bool, ...], starts: Any, weights: Any, inputs: tuple, target: Any, delta: float
) -> tuple[Any, Any]:
    """Coordinates [P, constants] moved to minima under weights [P, runs], and the objectives there [P]; target [runs]
    is log loss."""

    def residuals(p: Any) -> tuple[Any, Any]:
        r = jnp.log(_law(kind, logs, p, jnp.exp).loss(*inputs)) - target  # [runs]
        return r, r

    def one(problem: tuple) -> tuple[Any, Any]:
        start, weights = problem

        def value_of(r: Any) -> Any:
            return jnp.sum(weights * huber(r, delta, jnp.minimum))

        def step(state: tuple) -> tuple:
            p, value, damping, _, steps = state
            jac, r = jax.jacfwd(residuals, has_aux=True)(p)  # [runs, constants], [runs]
            # Huber(r) has the gradient of w r^2 / 2 with w = min(1, delta / |r|)
            weighted = jac * (weights / jnp.maximum(jnp.abs(r) / delta, 1.0))[:, None]
            hessian, gradient = weighted.T @ jac, weighted.T @ r
            diagonal = jnp.diagonal(hessian)
            # The second term keeps the matrix regular where a term of the law has died out and its derivatives
            # are zero.
            ridge = damping * diagonal + 1e-12 * diagonal.sum()
            trial = p - jnp.linalg.solve(hessian + jnp.diag(ridge), gradient)
            # A wild trial step may overflow; its objective is then inf or nan, and it is refused.
            trial_value = value_of(residuals(trial)[0])
            better = trial_value < value  # False for nan
            gain = jnp.where(better, value - trial_value, jnp.inf)
            p, value = jnp.where(better, trial, p), jnp.where(better, trial_value, value)
            damping = jnp.maximum(damping * jnp.where(better, 0.3, 4.0), 1e-10)
            # Done when a step gains nothing to speak of, relative to the objective, or when no step however short
            # gains at all.
            return p, value, damping, (gain > 1e-12 * value) & (damping < 1e10), steps + 1

        first = start, value_of(residuals(start)[0]), jnp.float64(1e-2), jnp.bool(True), 0
        p, value, *_ = jax.lax.while_loop(lambda state: state[3] & (state[4] < MAX_STEPS), step, first)
        return p, value

    # One after another, each for as many steps as it takes: a batch would wait for its slowest.
    return jax.lax.map(one, (starts, weights))
