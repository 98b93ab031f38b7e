"""Time approach 3 from the 4500 starts of Hoffmann et al. 2022, and 1000 resamples, beside SciPy's L-BFGS-B.

    python -m benchmarks.fits                     # 240 runs drawn from a published law
    python -m benchmarks.fits RUNS.csv            # params, tokens or flops, and loss

SciPy gets the objective as a log-sum-exp with its analytic gradient, vectorized in NumPy, and multiplied by 1/delta^2,
so that its tolerance does not stop it early. It is timed on some of the starts, drawn at random, and its time for all
is their number times the mean."""

import time
from collections.abc import Callable
from itertools import product
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from absl import flags
from scipy import optimize

from lm.commands import cli
from scaling import engine
from scaling.laws import EPOCH, Array, Chinchilla
from scaling.records import read_runs

DELTA = 1e-3
RESAMPLES = 1000
TIMED = 200  # starts given to SciPy
NOISE = 0.01  # of the runs drawn, in log loss


def grid() -> Array:
    """Hoffmann's 4500 starts [starts, constants]: log E, log A, log B, alpha, beta."""
    ends = [
        np.arange(-1, 1.1, 0.5),
        np.arange(0, 26, 5),
        np.arange(0, 26, 5),
        np.arange(0, 2.1, 0.5),
        np.arange(0, 2.1, 0.5),
    ]
    return np.array(list(product(*ends)))


def drawn() -> tuple[Array, Array, Array]:
    """240 runs of a published law, over the ranges of Hoffmann's."""
    rng = np.random.default_rng(0)
    N, C = np.exp(rng.uniform(np.log([[5e7], [6e18]]), np.log([[1.6e10], [3e21]]), (2, 240)))
    D = C / (6 * N)
    return N, D, EPOCH.predict(N, D) * np.exp(NOISE * rng.standard_t(3, 240))


def scipy_objective(N: Array, D: Array, loss: Array) -> Callable[[Array], tuple[float, Array]]:
    """The objective over delta^2 and its gradient, of a start's coordinates."""
    log_n, log_d, target = np.log(N), np.log(D), np.log(loss)

    def value(p: Array) -> tuple[float, Array]:
        e, a, b, alpha, beta = p
        terms = np.stack([np.full_like(log_n, e), a - alpha * log_n, b - beta * log_d])
        top = terms.max(0)
        shares = np.exp(terms - top)
        total = shares.sum(0)
        r = top + np.log(total) - target
        psi = np.clip(r, -DELTA, DELTA)
        by_e, by_a, by_b = psi * shares / total
        gradient = np.array([by_e.sum(), by_a.sum(), by_b.sum(), -(by_a @ log_n), -(by_b @ log_d)])
        return float(engine.huber(r, DELTA).sum()) / DELTA**2, gradient / DELTA**2

    return value


class Took(NamedTuple):
    """Seconds by the clock, and of all cores."""

    wall: float
    cpu: float

    def __str__(self) -> str:
        return f"{self.wall:.2f} s ({self.cpu:.2f} s of CPU)"


def clock(call: Callable[[], Any]) -> tuple[Took, Any]:
    wall, cpu = time.perf_counter(), time.process_time()
    result = call()
    return Took(time.perf_counter() - wall, time.process_time() - cpu), result


def main(argv: list[str]) -> None:
    if argv[1:]:
        runs = read_runs(Path(argv[1]))
        N, D, loss = runs["params"], runs["tokens"], runs["loss"]
    else:
        N, D, loss = drawn()
    space, starts = engine.Space(Chinchilla), grid()

    def fit(starts: Array) -> Any:
        return engine.fit_from(space, starts, [N, D], loss, DELTA)

    compiled, _ = clock(lambda: fit(starts[::30]))
    ours, found = clock(lambda: fit(starts))
    print(f"{len(loss)} runs; compilation, and {len(starts[::30])} starts: {compiled}")
    print(f"{len(starts)} starts: {ours}; objective {found.objective:.9e}, {found.reached} within 0.1 % of it")
    again, _ = clock(lambda: engine.bootstrap((N, D), loss, found, resamples=RESAMPLES))
    print(f"{RESAMPLES} resamples, each from the fit and {engine.FAR_STARTS} far starts: {again}")
    value = scipy_objective(N, D, loss)
    some = np.random.default_rng(0).choice(starts, TIMED, replace=False)
    theirs, ends = clock(lambda: [optimize.minimize(value, p, jac=True, method="L-BFGS-B") for p in some])
    every = len(starts) / TIMED
    best = min(end.fun for end in ends) * DELTA**2
    reached = sum(end.fun * DELTA**2 <= 1.001 * found.objective for end in ends)
    print(
        f"SciPy's L-BFGS-B, {TIMED} of the starts: {theirs}, so {every * theirs.wall:.0f} s for all: "
        f"{every * theirs.wall / ours.wall:.0f} times as long ({every * theirs.cpu / ours.cpu:.0f} times the CPU); "
        f"objective {best:.9e}, {reached} within 0.1 % of ours"
    )


if __name__ == "__main__":
    cli.run(main, arguments=2, usage="[RUNS.csv]", flag_values=flags.FlagValues(), own_code=False)
