"""Profile likelihoods: how the objective rises when one constant, or one decision, is held away from its best value and
all else is fitted anew.

An interval of resamples takes the fit's distribution for its answer; a profile shows where the runs stop contradicting
a value, be the objective ever so skewed or flat, and shows an end that does not exist. It is walked from the best
value outwards, each point fitted from the one before: fitted from afar, it ends in other minima where laws are wild.
The rise that rejects a value is that of a robust likelihood-ratio test (Ronchetti 1982): half of tau times Fisher's F
of 1 and runs - constants degrees, tau = E psi^2 / E psi' over the errors, where psi clips an error at delta. For least
squares tau is their variance.
"""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import special

from ..laws import Array, L
from .fitting import Fit, errors
from .identify import effects
from .minimise import Pull, huber, minimise
from .space import Space

GAIN = 0.5  # of the root of the rise, that a step is to make: the root is nearly straight in the value
TOP = 2.0  # root of the rise where a walk ends, well past one, which rejects a value
FLAT = 0.01  # gain of a long step, below which the rise has levelled off
LONG, FARTHEST = 3.0, 16.0  # such a step, and where a walk ends as well, in half-widths of the plain interval
SHORTEST = 1e-3  # step, in half-widths, below which a walk is at a loss
TURNS = 24  # of steps, long and short
ROUNDS = 2  # in which a decision is held by its second-order expansion, taken anew each time
STRENGTH = (
    1e4  # of a pull, against the objective's own curvature; short steps, as walls of the objective need, pull harder
)
TOLERANCE = 1e-10
ENDLESS = 690.0  # logarithm of a constant that floating point hardly holds: what happens there is no law's doing
LEAST = 1e-8  # singular value, of the greatest, that an inverse takes for no less
NUDGE = 1e-4  # of a constant's coordinate, for derivatives of a decision
EASE, EASES = 1e-3, np.arange(1.0, 60.0)  # rise, and changes of a constant's logarithm: see `_eased`

Quantities = Callable[[Any], Mapping[str, Any]]  # of a law, or of laws of arrays: values by name


@dataclass(frozen=True, eq=False)
class Profile:
    """Held `values` [points] in order, how far the objective rises there, in units of the rise that rejects a value
    [points], and between what values it does not reject; nan at an end that was not found, and `why` that is (of low
    and of high; empty for an end that was)."""

    values: Array
    rises: Array
    low: float
    high: float
    why: tuple[str, str] = ("", "")


def profile(
    fitted: Fit[L], inputs: Sequence[ArrayLike], target: ArrayLike, quantities: Quantities, level: float = 90.0
) -> dict[str, Profile]:
    """Profiles of all `quantities` of a law, with intervals of `level` percent; none of those that are nan."""
    if not quantities(fitted.law):
        return {}
    space, data, goal = fitted.space, [np.asarray(v, np.float64) for v in inputs], np.asarray(target, np.float64)
    free, runs = len(space.free), len(goal)
    best = space.point(fitted.law)
    slope, tau = _curvature(errors(fitted.law, data, goal), fitted.delta, runs - free)
    t = float(special.stdtrit(runs - free, 0.5 + level / 200))
    unit = 0.5 * tau * t**2  # a rise of one

    def as_good(points: Array) -> NDArray[np.bool_]:
        with np.errstate(all="ignore"):
            off = errors(space.build(points.T[..., None]), data, goal)
            return np.asarray(huber(off, fitted.delta).sum(-1) < fitted.objective + EASE * unit)  # False for nan

    names = list(quantities(fitted.law))
    logged = {name for name, v in quantities(fitted.law).items() if v > 0}
    at = _values(space, quantities, logged, best)

    def walked(start: Array) -> dict[str, tuple[_Walk, _Walk]]:
        """Down and up from a point, of quantities that the runs show there."""
        covariance = tau / slope * _inverse(effects(space, space.build(start), data))
        first, slopes, _ = (v[:, 0] for v in _derivatives(space, quantities, logged, start[None]))
        sd = np.sqrt(np.einsum("qi,ij,qj->q", slopes, covariance, slopes))
        shown = np.flatnonzero(np.isfinite(at) & np.isfinite(first) & np.isfinite(sd) & (sd > 0))
        if not len(shown):
            return {}
        # How points go with a value, and how far: no plain interval is believed beyond a factor of e, or of the value.
        ways = np.einsum("ij,qj->qi", covariance, slopes[shown]) / sd[shown, None] ** 2
        width = np.minimum(t * sd[shown], [1.0 if names[q] in logged else max(1.0, abs(at[q])) for q in shown])
        quantity, side, width = np.repeat(shown, 2), np.tile([-1.0, 1.0], len(shown)), np.repeat(width, 2)  # of walks
        walk = np.arange(len(quantity))

        def hold(points: Array, held: Array, step: Array) -> tuple[Array, Array, Array]:
            """Points of least objective near those given, where the quantities are about what is `held`, to a part of a
            `step`; what they are there, and the root of the rise."""
            strength = STRENGTH * tau * (t / np.minimum(width, step / GAIN)) ** 2
            for _ in range(ROUNDS):
                expansion = (v[quantity, walk] for v in _derivatives(space, quantities, logged, points))
                value, towards, bend = (np.nan_to_num(v, posinf=0.0, neginf=0.0) for v in expansion)
                pull = Pull(points, value - held, towards, bend, strength)
                points, objectives = minimise(
                    space, data, goal, points, delta=fitted.delta, tolerance=TOLERANCE, pull=pull
                )
            rises = np.maximum(objectives - fitted.objective, 0) / unit
            rises[(points[:, space.positive] > ENDLESS).any(1)] = np.nan
            return points, _values(space, quantities, logged, points)[quantity, walk], np.sqrt(rises)

        walks = _walks(start, first[quantity], at[quantity], side, width, np.repeat(ways, 2, axis=0), hold)
        return {names[q]: (walks[2 * i], walks[2 * i + 1]) for i, q in enumerate(shown)}

    eased = _eased(best, space.positive, as_good)
    both = [walked(start) for start in ([best] if (eased == best).all() else [best, eased])]
    found = {}
    for name, value in zip(names, at, strict=True):
        if np.isfinite(value):
            down, up = zip(*(walks.get(name, _unseen(value)) for walks in both), strict=True)
            found[name] = _profile(max(down, key=_reach), max(up, key=_reach), name in logged)
    return found


@dataclass(frozen=True)
class _Walk:
    """Values and roots of the rise, going away from the best value."""

    values: list[float]
    roots: list[float]
    lost: bool = False  # whether no further value could be held; else it went as far as it was to go


def _walks(
    start: Array, first: Array, best: Array, side: Array, width: Array, along: Array, hold: Callable
) -> list[_Walk]:
    """From the point [free] `start`, where the values [walks] are `first`, to the `side` (-1 or 1) of each, by steps
    that follow how fast the objective rises. `best` are the values of the fit, `width` is the half-width of the plain
    interval, `along` [walks, free] how points go with the value."""
    points, value, root = np.tile(start, (len(best), 1)), first, np.zeros(len(best))
    step, flat = GAIN * width, np.zeros(len(best), bool)
    paths = [_Walk([float(v)], [0.0]) for v in best]
    for _ in range(TURNS):
        going = ~flat & (root < TOP) & (np.abs(value - first) < FARTHEST * width) & (step > SHORTEST * width)
        if not going.any():
            break
        held = np.where(going, value + side * step, value)
        new, now, risen = hold(points + along * (held - value)[:, None], held, step)
        moved, gained = side * (now - value), risen - root
        # A jump is another minimum, or the edge of where the law makes sense: see nearer by.
        good = going & (moved > step / 4) & (moved < 4 * step) & (gained < 2 * GAIN)  # False for nan
        for i in np.flatnonzero(good):
            along[i] = (new[i] - points[i]) / (now[i] - value[i])
            if side[i] * (now[i] - best[i]) > 0:
                paths[i].values.append(float(now[i]))
                paths[i].roots.append(float(risen[i]))
        flat |= good & (moved > LONG * width) & (np.abs(gained) < FLAT)
        points = np.where(good[:, None], new, points)
        value, root = np.where(good, now, value), np.where(good, risen, root)
        with np.errstate(divide="ignore", invalid="ignore"):
            longer = np.where(gained > 0, np.clip(GAIN / gained, 0.5, 2.0), 2.0)
        step = np.where(going, step * np.where(good, longer, 0.25), step)
    return [replace(path, lost=bool(short)) for path, short in zip(paths, step <= SHORTEST * width, strict=True)]


def _eased(best: Array, positive: Sequence[bool], as_good: Callable[[Array], NDArray[np.bool_]]) -> Array:
    """The point [free], but constants that a fit has made as good as zero, or endless, at the last value that is
    `as_good`: nothing moves their logarithm from where it was."""
    point = best
    for i in np.flatnonzero(positive):
        unit = np.eye(len(best))[i]
        far = [int(np.sum(np.cumprod(as_good(point + sign * EASES[:, None] * unit)))) for sign in (1, -1)]
        if (far[0] == len(EASES)) != (far[1] == len(EASES)):  # one way for ever, the other way up to some value
            point = point + (far[0] if far[1] == len(EASES) else -far[1]) * unit
    return point


def _curvature(r: Array, delta: float, degrees: int) -> tuple[float, float]:
    """E psi' and tau of errors, psi' being smoothed over a kernel's width, since few errors lie within delta."""
    spread = min(float(np.std(r)), 1.4826 * float(np.median(np.abs(r - np.median(r))))) or float(np.std(r))
    if not np.isfinite(delta) or spread == 0:
        slope = 1.0
    else:
        width = 1.06 * spread * len(r) ** -0.2
        slope = float(np.mean(special.ndtr((delta - r) / width) - special.ndtr((-delta - r) / width)))
    return slope, float(np.sum(np.clip(r, -delta, delta) ** 2)) / degrees / slope


def _inverse(jacobian: Array) -> Array:
    """Of jacobian^T jacobian, [free, free]: large, not nothing, in directions that the runs do not show."""
    sizes = np.sqrt((jacobian**2).sum(0))
    sizes = np.maximum(sizes, LEAST * sizes.max())
    _, values, rows = np.linalg.svd(jacobian / sizes, full_matrices=False)
    half = rows.T / np.maximum(values, LEAST * values[0]) / sizes[:, None]
    return np.asarray(half @ half.T)


def _values(space: Space[Any], quantities: Quantities, logged: Collection[str], points: Array) -> Array:
    """Of quantities, `logged` ones in their logarithm, at points [..., free]: [quantities, ...]."""
    shape = points.shape[:-1]
    with np.errstate(all="ignore"):
        values = quantities(space.build(np.moveaxis(points, -1, 0)))
        return np.stack([np.broadcast_to(np.log(v) if name in logged else v, shape) for name, v in values.items()])


def _derivatives(
    space: Space[Any], quantities: Quantities, logged: Collection[str], points: Array
) -> tuple[Array, Array, Array]:
    """Values [quantities, points], slopes [quantities, points, free] and second derivatives [quantities, points, free,
    free] of quantities at points [points, free]."""
    nudge = NUDGE * np.eye(points.shape[1])
    middle = points[:, None, None]
    up, down, here = (_values(space, quantities, logged, middle[:, 0] + by) for by in (nudge, -nudge, 0 * nudge[:1]))
    both, apart = nudge[:, None] + nudge, nudge[:, None] - nudge  # [free, free, free]
    ends = (_values(space, quantities, logged, middle + by) for by in (both, apart, -apart, -both))
    with np.errstate(invalid="ignore"):
        upper, mixed, other, lower = ends
        return here[..., 0], (up - down) / (2 * NUDGE), (upper - mixed - other + lower) / (4 * NUDGE**2)


def _unseen(value: float) -> tuple[_Walk, _Walk]:
    return _Walk([float(value)], [0.0]), _Walk([float(value)], [0.0])


def _reach(walk: _Walk) -> float:
    """How far from the best value it goes before values are rejected. What a walk has not rejected no other one can:
    the objective may be lower there than it found, never higher."""
    end = walk.values[-1] if walk.lost else np.inf
    return abs((end if np.isnan(crossing := _crossing(walk)) else crossing) - walk.values[0])


def _profile(down: _Walk, up: _Walk, logged: bool) -> Profile:
    out = np.exp if logged else np.asarray
    values, roots = np.array(down.values[:0:-1] + up.values), np.array(down.roots[:0:-1] + up.roots)
    low, high = _crossing(down), _crossing(up)
    why = ("" if np.isfinite(low) else _why(down, out), "" if np.isfinite(high) else _why(up, out))
    return Profile(out(values), roots**2, float(out(low)), float(out(high)), why)


def _crossing(walk: _Walk) -> float:
    """Where the rise passes one for good: its root is nearly straight there. Lower again farther out, it is surely not
    larger than that nearer by, whatever was found there."""
    if walk.roots[-1] < 1:
        return float("nan")
    last = int(np.flatnonzero(np.array(walk.roots) < 1)[-1])
    return float(np.interp(1.0, walk.roots[last : last + 2], walk.values[last : last + 2]))


def _why(walk: _Walk, out: Callable) -> str:
    """Why no value was rejected."""
    far, rise = f"{float(out(walk.values[-1])):.3g}", f"{walk.roots[-1] ** 2:.2g}"
    if walk.lost:
        return f"not followed beyond {far}, where the objective has risen by {rise} of what rejects a value"
    return f"as far as {far} the objective rises by {rise} of what rejects a value"
