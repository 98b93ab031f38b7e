"""What a scaling law is: a formula whose constants are the fields of a frozen dataclass.

Letters throughout `scaling`: N parameters, D training tokens, C training FLOPs, L loss in nats per token,
E the loss that no model and no data removes, a and b the exponents of N_opt ~ C^a and D_opt ~ C^b.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, ClassVar, Literal, Self, TypeVar

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
Value = float | Array
FLOPS_PER_PARAM_TOKEN = 6.0  # C = 6 N D: two for the forward pass, four for the backward


@dataclass(frozen=True)
class Domain:
    """Where a constant lies, and between what two values `Law.starts` draws it. A `positive` one is searched, and
    drawn, in its logarithm. The range by default is that of exponents."""

    positive: bool
    low: float = 0.05
    high: float = 1.5

    def draw(self, rng: np.random.Generator, count: int) -> Array:
        if self.positive:
            return np.exp(rng.uniform(np.log(self.low), np.log(self.high), count))
        return rng.uniform(self.low, self.high, count)


POSITIVE, ANY = Domain(positive=True), Domain(positive=False)
Bounds = Mapping[str, Domain]


class Law(ABC):
    """A formula for what a run gives (`target`, mostly its loss): a frozen dataclass whose fields are its constants.

    The fields are floats, or arrays of one shape: a bootstrap is one law of arrays [resamples]. `scaling.engine`
    fits any law; `scaling.laws.LAWS` holds those that `python -m scaling.fit --law=NAME` knows."""

    formula: ClassVar[str]  # for people
    reads: ClassVar[tuple[str, ...]]  # columns of the runs that `predict` takes, in its order
    bounds: ClassVar[Bounds]  # of each constant
    target: ClassVar[str] = "loss"  # the column predicted
    # The error that is fitted: of the logarithm of the target (which is then positive), or of the target itself.
    residual: ClassVar[Literal["log", "linear"]] = "log"
    delta: ClassVar[float] = 1e-3  # error where Huber's loss turns from squared to absolute; inf: least squares
    # Constants in which `predict` is linear, given the others: they need no starts, since they are solved for.
    linear: ClassVar[tuple[str, ...]] = ()

    @abstractmethod
    def predict(self, *inputs: Any) -> Any:
        """The target, of arrays that broadcast against the fields. A pure function made of operators and of methods of
        arrays alone, since it is traced and differentiated by JAX as well as called with NumPy's arrays."""

    def constants(self) -> dict[str, Any]:
        """The fields by name."""
        return {f.name: getattr(self, f.name) for f in fields(self)}  # type: ignore[arg-type]

    def terms(self, names: Sequence[str], *inputs: Any) -> tuple[Any, list[Any]]:
        """`predict` without some of its `linear` constants, and what one of each adds to that."""
        none = replace(self, **dict.fromkeys(names, 0.0))  # type: ignore[type-var]
        rest = none.predict(*inputs)
        return rest, [replace(none, **{name: 1.0}).predict(*inputs) - rest for name in names]  # type: ignore[type-var]

    @classmethod
    def draw(cls, rng: np.random.Generator, count: int, target: Array, *inputs: Array) -> dict[str, Array]:
        """Random values [count] of each constant, from its `bounds`. Override it where a constant that is not linear
        has a scale of its own, as one in tokens has."""
        return {name: domain.draw(rng, count) for name, domain in cls.bounds.items()}

    @classmethod
    def starts(cls, rng: np.random.Generator, count: int, target: Array, *inputs: Array) -> Self:
        """A law of arrays [count] from which to search: what `draw` gives, but `linear` constants such that their term,
        at the median run, lies between 2 % of the median target and all of it. That serves bytes as well as tokens, and
        thousands of parameters as well as billions. Override it where other constants depend on each other."""
        drawn = cls.draw(rng, count, target, *inputs)
        law = cls(**{name: values[:, None] for name, values in drawn.items()})  # type: ignore[call-arg]
        _, terms = law.terms(cls.linear, *inputs)
        for name, term in zip(cls.linear, terms, strict=True):
            sizes = np.median(np.abs(np.broadcast_to(term, (count, len(target)))), axis=1)
            sizes = np.where(sizes > 0, sizes, 1.0)  # a term that these constants switch off: any factor does
            drawn[name] = np.median(np.abs(target)) * np.exp(rng.uniform(-4, 0, count)) / sizes
        return cls(**drawn)  # type: ignore[call-arg]

    def decisions(self, flops: float) -> dict[str, Any]:
        """What one would do with so much compute, by name, each a float or an array like the fields. Empty for a law
        that does not say; nan where the constants (of a resample) allow no answer."""
        return {}


class Frontier(Law):
    """A law of params and tokens that says how to divide compute between them."""

    @property
    @abstractmethod
    def exponents(self) -> tuple[Array, Array]:
        """(a, b), so that N_opt ~ C^a, D_opt ~ C^b and a + b = 1."""

    @abstractmethod
    def optimal(self, C: Any) -> tuple[Array, Array]:
        """The N and D of least loss among those with 6 N D = C; nan for resamples without
        such a point, `UserError` where none has one."""

    @property
    def sound(self) -> Any:
        """Whether such a point exists, bool [resamples]."""
        return np.ones(np.shape(next(iter(self.constants().values()))), bool)

    def decisions(self, flops: float) -> dict[str, Any]:
        """The exponents, the sizes of least loss for `flops` = 6 N D, and that loss; nan where there is no such
        point."""
        (a, b), none = self.exponents, np.full(np.shape(self.sound), np.nan)
        n, d = self.optimal(flops) if np.any(self.sound) else (none, none)
        return {"a": a, "b": b, "N_opt": n, "D_opt": d, "D/N": d / n, "loss": self.predict(n, d)}


L = TypeVar("L", bound=Law)


def middle(values: Array) -> float:
    """The geometric mean, for starts."""
    return float(np.exp(np.log(values).mean()))
