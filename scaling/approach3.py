"""Approach 3: fit L(N, D) = E + A/N^alpha + B/D^beta to runs of any shape (Hoffmann et al. 2022, section
3.3).

The objective is theirs: the sum over runs of Huber_delta(log L_predicted - log L), over the parameters p =
(log A, log B, log E, alpha, beta), where log L_predicted = LSE(log A - alpha log N, log B - beta log D, log
E).

The optimizer is not. Quasi-Newton stalls on Huber's kinks and stops early where delta makes the gradients
small, which is how the published constants came out wrong (Besiroglu et al. 2024). A Huber sum is a
least-squares sum whose weights depend on the residuals, so Levenberg-Marquardt with those weights
(iteratively reweighted least squares) needs no tolerance in the unit of the objective, and one batch of small
float64 solves carries every start, or every bootstrap resample, at once.
"""

from dataclasses import astuple, dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from lm.core.errors import UserError

from .laws import Array, Chinchilla

FAR_STARTS = 2  # of each bootstrap resample, besides the fit itself
POINTS = 6  # distinct (N, D) at least: one more than the law has constants
APART = (
    0.03  # share of their spread in log N, log D that runs must have off a line: else a term can stand for the other
)
MAX_STEPS = 500
CHUNK = 1 << 15  # problems x runs carried at once: about what stays in cache


@dataclass(frozen=True)
class Fit:
    """A fitted law; the sum of Huber losses there; how many of `starts` came within 0.1 % of that sum."""

    law: Chinchilla
    objective: float
    delta: float
    runs: int
    starts: int
    reached: int


def huber(r: ArrayLike, delta: float) -> Array:
    """r^2 / 2 up to |r| = delta, then the straight line delta (|r| - delta / 2) that continues it
    smoothly."""
    r = np.abs(np.asarray(r, np.float64))
    return np.where(r <= delta, 0.5 * r**2, delta * (r - 0.5 * delta))


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


def objective(law: Chinchilla, N: ArrayLike, D: ArrayLike, loss: ArrayLike, delta: float = 1e-3) -> float:
    """The sum over runs of Huber_delta of the error in log loss: what `fit` minimises, for comparing any two
    laws."""
    return float(huber(np.log(law.loss(N, D)) - np.log(np.asarray(loss, np.float64)), delta).sum())


def fit(N: ArrayLike, D: ArrayLike, loss: ArrayLike, *, delta: float = 1e-3, starts: int = 128, seed: int = 0) -> Fit:
    """The best law found from `starts` random starts; N, D, loss are [runs], positive.

    Raises `UserError` for runs that cannot determine five constants: too few, or with N and D that cannot be told
    apart.
    """
    data = _Centred(N, D, loss)
    data.check_identified()
    rng = np.random.default_rng(seed)
    p, value = _minimise(data.random_starts(rng, starts), np.ones((starts, data.runs)), data, delta)
    best = int(np.argmin(value))
    # Noise-free runs end at rounding error, where 0.1 % means nothing: residuals of delta / 1e5 also count as
    # zero.
    reached = int(np.sum(value <= 1.001 * value[best] + 0.5e-10 * data.runs * delta**2))
    law = Chinchilla(*(float(v) for v in astuple(data.law(p[best]))))
    return Fit(law, objective(law, N, D, loss, delta), delta, data.runs, starts, reached)


def bootstrap(
    N: ArrayLike,
    D: ArrayLike,
    loss: ArrayLike,
    fitted: Fit,
    *,
    resamples: int = 100,
    groups: ArrayLike | None = None,
    seed: int = 0,
) -> Chinchilla | None:
    """Refit runs drawn with replacement; returns the laws as one `Chinchilla` of arrays [resamples].

    Each resample starts from the fit and from `FAR_STARTS` random points. `groups` [runs] names the training
    run that a row belongs to when several rows are checkpoints of one: those are drawn together, since alone
    they would make the intervals far too narrow. A draw that lacks the points to determine the law is drawn again;
    None where no other draw than the runs themselves has them (see `NOTHING_FREE`).
    """
    data = _Centred(N, D, loss)
    rng = np.random.default_rng(seed)
    _, group = np.unique(np.arange(data.runs) if groups is None else np.asarray(groups), return_inverse=True)
    count = int(group.max()) + 1
    if max(data.points(group != g) for g in range(count)) < POINTS:
        return None
    weights = np.empty((resamples, data.runs))
    for i in range(resamples):
        while True:
            weights[i] = rng.multinomial(count, np.full(count, 1 / count))[group]
            if data.points(weights[i] > 0) >= POINTS:
                break
    p0 = np.concatenate(
        [
            np.tile(data.parameters(fitted.law), (resamples, 1)),
            data.random_starts(rng, FAR_STARTS * resamples),
        ]
    )
    p, value = _minimise(p0, np.tile(weights, (1 + FAR_STARTS, 1)), data, fitted.delta)
    best = np.argmin(value.reshape(-1, resamples), axis=0)
    return data.law(p.reshape(-1, resamples, 5)[best, np.arange(resamples)].T)


NOTHING_FREE = (
    f"no intervals: without any one of its runs the law has fewer than {POINTS} pairs of params and tokens, so that "
    "nothing is free to vary; more runs show how far to trust it"
)


class _Centred:
    """The runs in logs, with log N and log D measured from their means, which decorrelates A from alpha and B
    from beta: x, y, z [runs] are log N - mean, log D - mean, log loss."""

    def __init__(self, N: ArrayLike, D: ArrayLike, loss: ArrayLike):
        x, y, self.z = (np.log(np.asarray(v, np.float64)) for v in (N, D, loss))
        self.x_mean, self.y_mean = x.mean(), y.mean()
        self.x, self.y = x - self.x_mean, y - self.y_mean
        self.runs = len(self.z)
        _, self.places = np.unique(np.stack([x, y], axis=1), axis=0, return_inverse=True)

    def law(self, p: Array) -> Chinchilla:
        """The law of centred parameters [5] or [5, ...]."""
        a, b, e, alpha, beta = p
        return Chinchilla(np.exp(e), np.exp(a + alpha * self.x_mean), np.exp(b + beta * self.y_mean), alpha, beta)

    def parameters(self, law: Chinchilla) -> Array:
        a, b = np.log(law.A) - law.alpha * self.x_mean, np.log(law.B) - law.beta * self.y_mean
        return np.array([a, b, np.log(law.E), law.alpha, law.beta])

    def random_starts(self, rng: np.random.Generator, count: int) -> Array:
        """[count, 5]. Drawn from the data's own scale, so that it serves bytes as well as tokens, and
        thousands of parameters as well as billions: each of the three terms, at the middle run, between 2 %
        of the least loss and all of it."""
        terms = self.z.min() + rng.uniform(-4, 0, (count, 3))
        return np.concatenate([terms, rng.uniform(0.05, 1.5, (count, 2))], axis=1)

    def points(self, some: NDArray[np.bool_]) -> int:
        """How many distinct pairs of N and D these runs have."""
        return len(np.unique(self.places[some]))

    def check_identified(self) -> None:
        if self.runs < POINTS:
            raise UserError(f"{self.runs} runs cannot determine E, A, B, alpha and beta; approach 3 needs six or more")
        for name, v in (("params", self.x), ("tokens", self.y)):
            if (distinct := len(np.unique(v))) < 3:
                raise UserError(f"the runs have {distinct} distinct {name}; an exponent and E need three or more")
        line = line_of(np.exp(self.x), np.exp(self.y))
        if line.share < APART:
            raise UserError(
                f"N and D cannot be told apart: all runs lie within a factor of {line.factor:.3g} of D ~ "
                f"N^{line.slope:.2f}{self._like(line.slope)}; add runs with other D at the same N"
            )
        if (points := len(np.unique(self.places))) < POINTS:
            raise UserError(
                f"the runs have {points} distinct pairs of params and tokens, which cannot determine E, A, B, alpha "
                "and beta; approach 3 needs six or more"
            )

    def _like(self, slope: float) -> str:
        if abs(slope - 1) < 0.02:
            return f" (one ratio D/N = {np.exp(self.y_mean - self.x_mean):.3g})"
        return " (one compute budget)" if abs(slope + 1) < 0.02 else ""

    def evaluate(self, p: Array, weights: Array, delta: float) -> tuple[Array, Array, Array]:
        """For p [P, 5] and weights [P, runs]: the objective [P], residuals [P, runs], and what share of the
        predicted loss each term is [P, 3, runs], which is all that the derivatives need."""
        a, b, e, alpha, beta = p.T[:, :, None]
        # A wild trial step may overflow; its objective is then inf or nan, and the caller rejects it.
        with np.errstate(over="ignore", invalid="ignore"):
            terms = np.stack([a - alpha * self.x, b - beta * self.y, np.broadcast_to(e, (len(p), self.runs))], axis=1)
            top = terms.max(axis=1, keepdims=True)
            shares = np.exp(terms - top)
            total = shares.sum(axis=1, keepdims=True)
            shares /= total
            r = (top + np.log(total))[:, 0] - self.z
            return np.sum(weights * huber(r, delta), axis=1), r, shares


def _minimise(starts: Array, weights: Array, data: _Centred, delta: float) -> tuple[Array, Array]:
    """Minima p [P, 5] and their objectives [P] from starts [P, 5] under weights [P, runs]."""
    size = max(1, CHUNK // data.runs)
    parts = [
        _levenberg_marquardt(starts[i : i + size], weights[i : i + size], data, delta)
        for i in range(0, len(starts), size)
    ]
    return np.concatenate([p for p, _ in parts]), np.concatenate([value for _, value in parts])


def _levenberg_marquardt(p: Array, weights: Array, data: _Centred, delta: float) -> tuple[Array, Array]:
    p = p.copy()
    value, r, shares = data.evaluate(p, weights, delta)
    damping = np.full(len(p), 1e-2)
    live = np.arange(len(p))
    for _ in range(MAX_STEPS):
        s, res = shares[live], r[live]
        # d log L / d (log A, log B, log E, alpha, beta) [P, 5, runs]
        jac = np.concatenate([s, -data.x * s[:, :1], -data.y * s[:, 1:2]], axis=1)
        # Huber(r) has the gradient of w r^2 / 2 with w = min(1, delta / |r|)
        weighted = jac * (weights[live] / np.maximum(np.abs(res) / delta, 1.0))[:, None]
        hessian = weighted @ jac.transpose(0, 2, 1)
        gradient = (weighted @ res[:, :, None])[..., 0]
        diagonal = np.einsum("pii->pi", hessian)
        # The second term keeps the matrix regular where a term of the law has died out and its derivatives
        # are zero.
        ridge = damping[live, None] * diagonal + 1e-12 * diagonal.sum(axis=1, keepdims=True)
        step = np.linalg.solve(hessian + ridge[:, :, None] * np.eye(5), gradient[..., None])[..., 0]
        trial = p[live] - step
        trial_value, trial_r, trial_shares = data.evaluate(trial, weights[live], delta)
        better = trial_value < value[live]  # False for nan
        gain = np.where(better, value[live] - trial_value, np.inf)
        to = live[better]
        p[to], value[to], r[to], shares[to] = (
            trial[better],
            trial_value[better],
            trial_r[better],
            trial_shares[better],
        )
        damping[live] *= np.where(better, 0.3, 4.0)
        damping[live] = np.maximum(damping[live], 1e-10)
        # Done when a step gains nothing to speak of, relative to the objective, or when no step however short
        # gains at all.
        live = live[(gain > 1e-12 * value[live]) & (damping[live] < 1e10)]
        if not len(live):
            break
    return p, value
