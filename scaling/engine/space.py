"""The constants of a law that a fit is free to choose, as points that an optimiser moves."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from typing import Any, Generic

import numpy as np

from lm.core.errors import UserError, nearest

from ..laws import Array, L


@dataclass(frozen=True)
class Space(Generic[L]):
    """The free constants of a law, positive ones in their logarithm; `fixed` ones keep a value, and each of `tied` is
    always equal to another, which is free. Raises `UserError` for constants that the law does not have, or that cannot
    be so."""

    law: type[L]
    fixed: tuple[tuple[str, float], ...] = ()
    tied: tuple[tuple[str, str], ...] = ()

    def __post_init__(self) -> None:
        named = [name for name, _ in self.fixed] + [name for pair in self.tied for name in pair]
        for name in named:
            if name not in self.names:
                raise UserError(
                    f"the law {self.law.formula} has no constant {name!r}{nearest(name, self.names)}; "
                    f"it has {', '.join(self.names)}"
                )
        for name, value in self.fixed:
            if not np.isfinite(value) or (self.law.bounds[name].positive and value <= 0):
                kind = "positive" if self.law.bounds[name].positive else "finite"
                raise UserError(f"{name} cannot be fixed at {value:g}: give a {kind} number, as in --fix={name}=1.5")
        taken = [name for name, _ in self.fixed] + [name for name, _ in self.tied]
        for name, other in self.tied:
            if other in taken or taken.count(name) > 1:
                raise UserError(f"{name} cannot be tied to {other}: one of them is fixed or tied already")
            if self.law.bounds[name].positive != self.law.bounds[other].positive:
                raise UserError(f"{name} cannot be tied to {other}: one must be positive, the other need not")
        if not self.free:
            raise UserError(f"every constant of {self.law.formula} is fixed: nothing is left to fit")

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(f.name for f in fields(self.law))  # type: ignore[arg-type]

    @property
    def free(self) -> tuple[str, ...]:
        """The constants that a point [free] holds, in its order."""
        bound = {name for name, _ in (*self.fixed, *self.tied)}
        return tuple(name for name in self.names if name not in bound)

    @property
    def positive(self) -> tuple[bool, ...]:
        return tuple(self.law.bounds[name].positive for name in self.free)

    def build(self, point: Any, exp: Callable = np.exp) -> L:
        """The law of a point [free] or of points [free, ...]."""
        values: dict[str, Any] = {
            name: exp(v) if log else v for name, v, log in zip(self.free, point, self.positive, strict=True)
        }
        values |= {name: values[other] for name, other in self.tied}
        # Times one, so that a fixed constant is an array where the others are.
        values |= {name: value * values[self.free[0]] ** 0 for name, value in self.fixed}
        return self.law(**values)

    def point(self, law: L) -> Array:
        """[..., free], of floats or arrays; what is fixed or tied is not asked."""
        values = [
            np.log(getattr(law, name)) if log else getattr(law, name)
            for name, log in zip(self.free, self.positive, strict=True)
        ]
        return np.stack([np.asarray(v, np.float64) for v in values], axis=-1)

    def starts(self, rng: np.random.Generator, count: int, target: Array, inputs: Sequence[Array]) -> Array:
        """Points [count, free]: the law's own starts, whose linear constants are then the best for the others
        (variable projection: weighted linear least squares, in the relative error where the law's is one of the
        logarithm). A positive one whose best value is not positive stays where it was drawn."""
        points = self.point(self.law.starts(rng, count, target, *inputs))
        shared = {name for pair in self.tied for name in pair}
        where = [i for i, name in enumerate(self.free) if name in self.law.linear and name not in shared]
        if not where:
            return points
        laws = self.build(points.T[..., None])  # constants [count, 1], against inputs [runs]
        linear = [self.free[i] for i in where]
        with np.errstate(all="ignore"):
            rest, columns = laws.terms(linear, *inputs)
            scale = target if self.law.residual == "log" else np.ones_like(target)
            shape = (count, len(target))
            rows = np.stack([np.broadcast_to(c, shape) / scale for c in columns], axis=-1)  # [count, runs, linear]
            wanted = np.broadcast_to((target - rest) / scale, shape)
            sizes = np.sqrt(np.einsum("cri,cri->ci", rows, rows))
            rows = rows / sizes[:, None, :]
            normal = np.einsum("cri,crj->cij", rows, rows) + 1e-10 * np.eye(len(where))
            right = np.einsum("cri,cr->ci", rows, wanted)
            good = np.isfinite(normal).all((1, 2)) & np.isfinite(right).all(1)
            best = np.full_like(right, np.nan)
            best[good] = np.linalg.solve(normal[good], right[good][..., None])[..., 0] / sizes[good]
            for i, values in zip(where, best.T, strict=True):
                values = np.log(values) if self.positive[i] else values
                points[:, i] = np.where(np.isfinite(values), values, points[:, i])
        return points
