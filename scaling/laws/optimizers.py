"""A law of two optimizers (or recipes) at once."""

from dataclasses import dataclass
from typing import Any, ClassVar

from .chinchilla import Chinchilla
from .law import ANY, POSITIVE, Bounds, Domain, Law, Value

GAIN = Domain(positive=True, low=0.5, high=2.0)


@dataclass(frozen=True)
class TwoRecipes(Law):
    """L = E + A / (rN^v N)^alpha + B / (rD^v D)^beta, v = 0 for the runs of one optimizer and 1 for those of the other:
    Volkova et al. 2026 (arXiv 2602.07712). Laws of their own are ill-conditioned and cannot be compared constant by
    constant; with exponents shared, rN and rD say what the second optimizer is worth: it does with N parameters and D
    tokens what the first does with rN N and rD D. Each must have been tuned for itself."""

    E: Value
    A: Value
    B: Value
    alpha: Value
    beta: Value
    rN: Value
    rD: Value

    formula: ClassVar[str] = "L(N, D, v) = E + A / (rN^v N)^alpha + B / (rD^v D)^beta, v = 0 or 1"
    reads: ClassVar[tuple[str, ...]] = ("params", "tokens", "variant")
    bounds: ClassVar[Bounds] = {
        **dict.fromkeys(("E", "A", "B"), POSITIVE),
        **dict.fromkeys(("alpha", "beta"), ANY),
        **dict.fromkeys(("rN", "rD"), GAIN),
    }
    linear: ClassVar[tuple[str, ...]] = ("E", "A", "B")

    def predict(self, N: Any, D: Any, variant: Any) -> Any:
        return self.E + self.A / (self.rN**variant * N) ** self.alpha + self.B / (self.rD**variant * D) ** self.beta

    def at(self, variant: int) -> Chinchilla:
        """The law of one of the two."""
        A, B = self.A / self.rN ** (variant * self.alpha), self.B / self.rD ** (variant * self.beta)
        return Chinchilla(self.E, A, B, self.alpha, self.beta)
