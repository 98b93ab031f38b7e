"""How well a law would be known after some runs: the delta method.

Runs end off the law by normal errors of their log loss, of which those of one trunk share a part (`Noise`): S is their
covariance. Least squares then find the constants with covariance (J'J)^-1 J'S J (J'J)^-1, J the derivatives of log
loss, and a decision of gradient g with the variance g' (..) g. Fits take Huber's loss of errors, which costs precision
where errors are normal: `efficiency` says how much. All that is local: it holds where noise is so small that the law is
nearly linear in its constants.
"""

import math
from typing import Any, NamedTuple

import numpy as np

from ..engine import Space as Constants
from ..engine import effects
from ..laws import Array, Frontier

STEP = 1e-5  # of a constant in central differences
# Standard deviation of a constant of which nothing is known, of positive ones of the logarithm. It keeps the
# information of the first few runs regular, and is nothing beside that of a whole design.
UNKNOWN = 3.0
DECISIONS = ("a", "N_opt", "D_opt", "loss")  # of `Frontier.decisions`, by which a design may be judged


class Noise(NamedTuple):
    """run: standard deviation of a run's log loss; shared: the part of its variance that runs of one trunk have in
    common, by the same initial values and the same data."""

    run: float
    shared: float = 0.5

    def draw(self, rng: np.random.Generator, count: int, trunks: Any) -> Array:
        """Errors [count, runs]; `trunks` [runs] names the trunk of each."""
        _, trunk = np.unique(trunks, return_inverse=True)
        common = rng.standard_normal((count, trunk.max() + 1))[:, trunk]
        own = rng.standard_normal((count, len(trunk)))
        return self.run * (math.sqrt(self.shared) * common + math.sqrt(1 - self.shared) * own)


class Question(NamedTuple):
    """What a sweep is to answer: a decision (one of `DECISIONS`, or "all": every constant of the law), for `flops`."""

    decision: str
    flops: float

    def gradients(self, law: Frontier) -> Array | None:
        """The derivatives of the answer's logarithm, [1, constants]; by central differences. None for "all"."""
        if self.decision == "all":
            return None
        space = Constants(type(law))
        moved = space.point(law) + STEP * np.concatenate([np.eye(len(space.free)), -np.eye(len(space.free))])
        up, down = np.log(space.build(moved.T).decisions(self.flops)[self.decision]).reshape(2, -1)
        return np.asarray(up - down)[None] / (2 * STEP)


def rows(law: Frontier, N: Array, D: Array) -> Array:
    """The derivatives of each run's log loss, [runs, constants]."""
    return effects(Constants(type(law)), law, [N, D])


def information(jac: Array, trunks: Any, noise: Noise) -> Array:
    """On the constants, of runs whose log losses have the derivatives `jac` [..., runs, constants] and whose trunks
    [runs] are these: J' S^-1 J, [..., constants, constants]."""
    _, trunk = np.unique(trunks, return_inverse=True)
    of_trunk = np.equal.outer(np.arange(trunk.max(initial=-1) + 1), trunk).astype(float)
    totals = of_trunk @ jac  # [..., trunks, constants]
    weights = noise.shared / (1 - noise.shared + noise.shared * of_trunk.sum(axis=1))
    own, common = np.swapaxes(jac, -1, -2) @ jac, np.swapaxes(totals, -1, -2) @ (weights[:, None] * totals)
    return np.asarray(own - common) / (noise.run**2 * (1 - noise.shared))


def deviation(
    law: Frontier, N: Array, D: Array, trunks: Any, noise: Noise, question: Question, delta: float = math.inf
) -> float:
    """Of the logarithm of the decision, as a fit to these runs with Huber's `delta` would estimate it; inf where the
    runs do not determine it."""
    asked = question.gradients(law)
    assert asked is not None, "one decision"
    jac, g = rows(law, N, D), asked[0]
    u, s, vt = np.linalg.svd(jac, full_matrices=False)
    if len(jac) < len(g) or s[-1] <= 1e-12 * s[0]:
        return math.inf
    weights = u @ ((vt @ g) / s)  # of each run's error in the decision's
    together = np.equal.outer(trunks, trunks) * noise.shared
    together[np.diag_indices_from(together)] = 1 / efficiency(delta / noise.run)
    return noise.run * math.sqrt(weights @ together @ weights)


def efficiency(kink: float) -> float:
    """Of Huber's loss with its kink at so many standard deviations of normal errors: the variance of least squares over
    its own. 1 where nothing is beyond the kink, 2 / pi (that of absolute errors) where all is (Huber 1964)."""
    if kink == math.inf:
        return 1.0
    inside = math.erf(kink / math.sqrt(2))  # share of errors within
    density = math.exp(-(kink**2) / 2) / math.sqrt(2 * math.pi)
    mean_square = inside - 2 * kink * density + kink**2 * (1 - inside)  # of the errors, clipped at the kink
    return inside**2 / mean_square if mean_square > 0 else 2 / math.pi
