"""Whether runs determine the constants of a law: refused where they cannot, doubted where they hardly do."""

import functools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import ArrayLike, NDArray

from lm.core.errors import UserError

from ..laws import Array, L, Law
from .space import Space

# Share of their spread that runs must have off a line in log N, log D: else one term can stand for the other.
APART = 0.03
HARDLY_APART = 0.15
RANGES = ("params", "tokens", "flops")  # columns whose range an exponent needs
NARROW = 4.0  # largest over smallest, below which an exponent hardly shows; published fits have 100 and more
TOO_NARROW = 1.5  # below which it does not
NO_FLOOR = 0.01  # share of the least loss, below which a term of the law is as good as zero
DEPENDENT = 1e-9  # least over largest singular value of the constants' effects, below which some have none of their own


def fewest(space: Space[Any]) -> int:
    """Distinct points that the runs must have: one more than there are free constants."""
    return len(space.free) + 1


def points_of(inputs: Sequence[Array]) -> NDArray[np.intp]:
    """The number of each run's point [runs]; runs at the same inputs share it."""
    _, ids = np.unique(np.stack(inputs, axis=1), axis=0, return_inverse=True)
    return np.asarray(ids.reshape(-1))


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


def check_runs(space: Space[Any], inputs: Sequence[Array], target: Array, force: bool) -> None:
    """Raises `UserError` for values that no law gives, and for runs that cannot determine the free constants, whatever
    they gave; also for those that hardly do, unless `force`."""
    positive = space.law.residual == "log"
    wrong = {space.law.target: ~(target > 0) if positive else ~np.isfinite(target)}
    wrong |= {name: np.isnan(v) for name, v in zip(space.law.reads, inputs, strict=True)}
    for name, bad in wrong.items():
        if bad.any():
            kind = "positive number" if positive and name == space.law.target else "number"
            raise UserError(f"{bad.sum()} of {len(bad)} runs have a {name} that is no {kind}; leave them out")
    runs, least = len(inputs[0]), fewest(space)
    named = " and ".join([text for text in (", ".join(space.free[:-1]), space.free[-1]) if text])
    if runs < least:
        raise UserError(f"{runs} runs cannot determine {named}; this law needs {least} or more")
    reads = space.law.reads
    if len(space.free) == len(space.names):  # a constant less may need a size less
        for name, v in zip(reads, inputs, strict=True):
            if name in RANGES and (distinct := len(np.unique(v))) < 3:
                raise UserError(f"the runs have {distinct} distinct {name}; an exponent needs three or more")
        if not force:
            _check_wide(reads, inputs)
    if (points := len(np.unique(points_of(inputs)))) < least:
        pairs = " and ".join(reads)
        raise UserError(
            f"the runs have {points} distinct pairs of {pairs}, which cannot determine {named}; this law needs "
            f"{least} or more"
        )


def _check_wide(reads: Sequence[str], inputs: Sequence[Array]) -> None:
    for name, v in zip(reads, inputs, strict=True):
        if name in RANGES and (span := float(v.max() / v.min())) < TOO_NARROW:
            raise UserError(
                f"the runs' {name} span only {span:.4g}x, from {v.min():.4g} to {v.max():.4g}: no exponent shows "
                f"there; add runs {NARROW:g}x apart or more, or give --force"
            )
    if reads[:2] != ("params", "tokens"):
        return
    line = line_of(*inputs[:2])
    if line.share < APART:
        like = " (one compute budget)" if abs(line.slope + 1) < 0.02 else ""
        if abs(line.slope - 1) < 0.02:
            N, D = inputs[:2]
            like = f" (one ratio D/N = {np.exp(np.mean(np.log(D / N))):.3g})"
        raise UserError(
            f"N and D cannot be told apart: all runs lie within a factor of {line.factor:.3g} of D ~ "
            f"N^{line.slope:.2f}{like}; add runs with other D at the same N, or give --force"
        )


def effects(space: Space[L], law: L, inputs: Sequence[Array]) -> Array:
    """The derivative of each run's error in each free constant, positive ones in their logarithm: [runs, free]."""
    with jax.enable_x64(True):
        return np.asarray(_effects(space, space.point(law), tuple(inputs)))


@functools.partial(jax.jit, static_argnums=0)
def _effects(space: Space[Any], point: Any, inputs: tuple) -> Any:
    def predicted(point: Any) -> Any:
        target = space.build(point, jnp.exp).predict(*inputs)
        return jnp.log(target) if space.law.residual == "log" else target

    return jax.jacfwd(predicted)(point)


def check_determined(space: Space[L], law: L, inputs: Sequence[Array]) -> None:
    """Raises `UserError` where other constants would give these runs the same errors: some effects depend on one
    another."""
    jacobian = effects(space, law, inputs)
    sizes = np.sqrt((jacobian**2).sum(0))
    _, values, rows = np.linalg.svd(jacobian / np.where(sizes > 0, sizes, 1.0))
    if values[-1] < DEPENDENT * values[0]:
        mixed = [name for name, share in zip(space.free, np.abs(rows[-1]), strict=True) if share > 0.1]
        raise UserError(
            f"these runs do not determine {' and '.join(mixed)}: other values fit them as well; add runs that "
            f"differ in more of {', '.join(law.reads)}, fix one with --fix={mixed[0]}=VALUE, or give --force"
        )


def correlations(space: Space[L], law: L, inputs: Sequence[Array]) -> Array:
    """Of the errors of the free constants, [free, free], as equal independent errors of the runs would make them; nan
    where the runs do not determine them."""
    jacobian = effects(space, law, inputs)
    with np.errstate(invalid="ignore", divide="ignore"):
        scaled = jacobian / np.sqrt((jacobian**2).sum(0))
        if not np.isfinite(scaled).all():
            return np.full((scaled.shape[1],) * 2, np.nan)
        _, values, rows = np.linalg.svd(scaled, full_matrices=False)
        covariance = (rows.T / values**2) @ rows
        sd = np.sqrt(np.diag(covariance))
        return np.asarray(covariance / np.outer(sd, sd))


def doubts(space: Space[L], law: L, inputs: Sequence[Array], target: Array) -> list[str]:
    """What the runs hardly show: exponents over narrow ranges, N and D apart from one another, terms of the law,
    constants apart from one another."""
    read = dict(zip(law.reads, inputs, strict=True))
    notes = [
        f"{name} span only {span:.3g}x (100x is usual): an exponent of them is hardly determined"
        for name, v in read.items()
        if name in RANGES and (span := float(v.max() / v.min())) < NARROW
    ]
    if law.reads[:2] == ("params", "tokens"):
        line = line_of(*inputs[:2])
        if line.share < HARDLY_APART:
            near = f"within a factor of {line.factor:.3g} of D ~ N^{line.slope:.2f}"
            notes.append(f"N and D are hardly told apart: all runs lie {near}")
    return notes + _gone(law, read, target)


def _gone(law: Law, read: dict[str, Array], target: Array) -> list[str]:
    """Terms that are next to nothing, by what is left of the loss without one input's limit, and without all: an
    infinite one costs nothing."""
    endless = {name: np.full_like(v, np.inf) for name, v in read.items() if name in RANGES}
    least = np.abs(target).min()
    with np.errstate(all="ignore"):
        full = law.predict(*read.values())
        gained = {name: full - law.predict(*(read | {name: v}).values()) for name, v in endless.items()}
        gone = [f"what {name} cost" for name, part in gained.items() if np.abs(part).max() < NO_FLOOR * least]
        if "E" in law.constants() and law.predict(*(read | endless).values()).max() < NO_FLOOR * least:
            gone.insert(0, "E")
    return [f"{what} is next to nothing: these runs do not show that term" for what in gone]
