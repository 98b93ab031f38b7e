"""Profile likelihoods: how the objective rises when one constant, or one decision, is held away from its best value and
all else is fitted anew.

An interval of resamples takes the fit's distribution for its answer; a profile shows where the runs stop contradicting
a value, be the objective ever so skewed or flat, and shows an end that does not exist. The rise that rejects a value is
that of a robust likelihood-ratio test (Ronchetti 1982): half of tau times Fisher's F of 1 and runs - constants degrees,
tau = E psi^2 / E psi' over the errors, where psi clips an error at delta. For least squares tau is their variance.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike
from scipy import special

from ..laws import Array, L
from .fitting import Fit, errors
from .identify import effects
from .minimise import Pull, minimise

STEPS = (0.5, 1.0, 1.5, 2.0, 3.0, 5.0, 8.0)  # where a profile is taken, in half-widths of the plain interval
ROUNDS = 3  # in which a decision is held by its tangent, taken anew each time
STRENGTH = 100.0  # of a pull, against the objective's own curvature
TOLERANCE = 1e-10
NUDGE = 1e-5  # of a constant's coordinate, for the tangent

Quantities = Callable[[Any], Mapping[str, Any]]  # of a law, or of laws of arrays: values by name


@dataclass(frozen=True, eq=False)
class Profile:
    """Held `values` [points] in order, how far the objective rises there, in units of the rise that rejects a value
    [points], and between what values it does not reject; nan at an end that was not found."""

    values: Array
    rises: Array
    low: float
    high: float


def profile(
    fitted: Fit[L], inputs: Sequence[ArrayLike], target: ArrayLike, quantities: Quantities, level: float = 90.0
) -> dict[str, Profile]:
    """Profiles of all `quantities` of a law, with intervals of `level` percent; none of those that are nan."""
    if not quantities(fitted.law):
        return {}
    space, data, goal = fitted.space, [np.asarray(v, np.float64) for v in inputs], np.asarray(target, np.float64)
    free, runs = len(space.free), len(goal)
    best = space.point(fitted.law)
    r, jacobian = errors(fitted.law, data, goal), effects(space, fitted.law, data)
    slope, tau = _curvature(r, fitted.delta, runs - free)
    information = slope * jacobian.T @ jacobian
    covariance = tau * np.linalg.pinv(information, hermitian=True)
    t = float(special.stdtrit(runs - free, 0.5 + level / 200))
    names, at, tangents = _tangents(space, quantities, best[None])
    sd = np.sqrt(np.einsum("qi,ij,qj->q", tangents[:, 0], covariance, tangents[:, 0]))
    usable = np.flatnonzero(np.isfinite(sd) & (sd > 0) & np.isfinite(at[:, 0]))
    if not len(usable):
        return {}
    offsets = t * np.array([-s for s in STEPS[::-1]] + list(STEPS))
    quantity = np.repeat(usable, len(offsets))  # of each problem
    held = at[quantity, 0] + sd[quantity] * np.tile(offsets, len(usable))
    along = np.einsum("ij,qj->qi", covariance, tangents[quantity, 0]) / sd[quantity, None] ** 2
    points = best + along * (held - at[quantity, 0])[:, None]
    which = np.arange(len(quantity))
    for _ in range(ROUNDS):
        _, now, tangent = _tangents(space, quantities, points)
        direction = tangent[quantity, which]
        pull = Pull(
            np.nan_to_num(direction),
            np.nan_to_num(held - now[quantity, which] + np.einsum("pf,pf->p", direction, points)),
            STRENGTH * tau / sd[quantity] ** 2,
        )
        points, values = minimise(space, data, goal, points, delta=fitted.delta, tolerance=TOLERANCE, pull=pull)
    _, now, _ = _tangents(space, quantities, points)
    rises = np.maximum(values - fitted.objective, 0) / (0.5 * tau * t**2)
    found = {}
    for q in usable:
        mine = quantity == q
        found[names[q]] = _profile(now[q, mine], rises[mine], at[q, 0], names[q] in _logged(quantities(fitted.law)))
    return found


def _curvature(r: Array, delta: float, degrees: int) -> tuple[float, float]:
    """E psi' and tau of errors, psi' being smoothed over a kernel's width, since few errors lie within delta."""
    spread = min(float(np.std(r)), 1.4826 * float(np.median(np.abs(r - np.median(r))))) or float(np.std(r))
    if not np.isfinite(delta) or spread == 0:
        slope = 1.0
    else:
        width = 1.06 * spread * len(r) ** -0.2
        slope = float(np.mean(special.ndtr((delta - r) / width) - special.ndtr((-delta - r) / width)))
    return slope, float(np.sum(np.clip(r, -delta, delta) ** 2)) / degrees / slope


def _logged(values: Mapping[str, Any]) -> set[str]:
    """Quantities that are positive, and held in their logarithm."""
    return {name for name, v in values.items() if np.all(np.asarray(v) > 0)}


def _tangents(space: Any, quantities: Quantities, points: Array) -> tuple[list[str], Array, Array]:
    """Names, values [quantities, points] and derivatives [quantities, points, free] of quantities at points [points,
    free]."""
    count, free = points.shape
    nudges = np.concatenate([np.zeros((1, free)), NUDGE * np.eye(free), -NUDGE * np.eye(free)])
    moved = (points[:, None] + nudges).reshape(-1, free)
    with np.errstate(all="ignore"):
        values = quantities(space.build(moved.T))
        logged = _logged(quantities(space.build(points[0])))
        all_of = np.stack(
            [np.broadcast_to(np.log(v) if name in logged else v, len(moved)) for name, v in values.items()]
        )
        each = all_of.reshape(len(values), count, 1 + 2 * free)
        tangents = (each[..., 1 : 1 + free] - each[..., 1 + free :]) / (2 * NUDGE)
    return list(values), each[..., 0], tangents


def _profile(values: Array, rises: Array, best: float, logged: bool) -> Profile:
    out = np.exp if logged else np.asarray
    with np.errstate(over="ignore"):
        good = np.isfinite(out(values)) & np.isfinite(rises)
    values, rises = values[good], rises[good]
    ends = [_crossing(values[side], rises[side], best) for side in (values < best, values > best)]
    values, rises = np.append(values, best), np.append(rises, 0.0)
    order = np.argsort(values)
    return Profile(out(values[order]), rises[order], *(float(out(end)) for end in ends))


def _crossing(values: Array, rises: Array, best: float) -> float:
    """Where the rise passes one, going away from the best value; its root is nearly straight there."""
    order = np.argsort(np.abs(values - best))
    values, rises = np.append(best, values[order]), np.append(0.0, rises[order])
    beyond = np.flatnonzero(rises >= 1)
    if not len(beyond):
        return float("nan")
    i = int(beyond[0])
    return float(np.interp(1.0, np.sqrt(rises[i - 1 : i + 1]), values[i - 1 : i + 1]))
