"""Rules for learning rate, batch, warm-up, beta2 and weight decay of a model that nobody tuned.

Each is what one paper found for its own data, architecture and schedule, in the letters of that paper, with the range
in which it was fitted: outside of it a rule still answers, and `outside` says how far it had to reach. Exponents move
by a tenth with the estimator (of Step Law's own runs, for one), so a rule is where a search begins, not where it ends:
try half and twice the rate at the smallest size.
"""

import abc
import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from ml_collections.config_dict import ConfigDict

from lm.core.errors import UserError, nearest

from .flops import Shape, deepseek
from .ladder import Rung
from .laws import DEEPSEEK_BATCH, DEEPSEEK_RATE, PORIAN_BATCH, PORIAN_RATE, STEP_BATCH, STEP_RATE

SEQUENCES = 128  # up to so many in a batch beta2 = 0.95 forgets too soon (Porian et al. 2024)
MOST_WARMUP = 0.1  # of a run: a longer one favours small models (Porian et al. 2024)


@dataclass(frozen=True)
class Run:
    """What a rule may read: a model, its training tokens and the tokens of a row."""

    rung: Rung
    tokens: float
    length: int

    @property
    def flops(self) -> float:
        """6 N D."""
        return 6.0 * self.rung.params * self.tokens


@dataclass(frozen=True)
class Knobs:
    """What a rule says; None: nothing, and the config's own value holds. batch and warmup are tokens."""

    learning_rate: float
    batch: float | None = None
    warmup: float | None = None
    b2: float | None = None
    weight_decay: float | None = None


class Rule(abc.ABC):
    """A component. `valid`: between which values of what it reads it was fitted; the names are those of `reads`."""

    paper: ClassVar[str]
    valid: ClassVar[Mapping[str, tuple[float, float]]] = {}

    @abc.abstractmethod
    def knobs(self, run: Run) -> Knobs: ...

    @abc.abstractmethod
    def reads(self, run: Run) -> dict[str, float]:
        """The values that decide, by the paper's letters."""

    def __call__(self, run: Run) -> Knobs:
        """`knobs`, with a warm-up of no more than `MOST_WARMUP` of the run, and no less than a row to the batch."""
        said = self.knobs(run)
        if said.warmup is not None:
            said = dataclasses.replace(said, warmup=min(said.warmup, MOST_WARMUP * run.tokens))
        if said.batch is not None:
            said = dataclasses.replace(said, batch=max(said.batch, float(run.length)))
        return said

    def outside(self, run: Run) -> str | None:
        """Where this run lies outside the range in which the rule was fitted, in words."""
        read = self.reads(run)
        for name, (low, high) in self.valid.items():
            if not low <= read[name] <= high:
                return f"{name} = {read[name]:.3g} lies outside {low:.3g} to {high:.3g}, where {self.paper} fitted it"
        return None


@dataclass(frozen=True)
class Width(Rule):
    """The learning rate falls with the width, as a matrix's does under muP with Adam (Yang et al. 2022, arXiv
    2203.03466); batch and the rest are the config's."""

    rate: float = 0.128  # times the width
    warmup: float = 1.0  # training tokens per parameter

    paper: ClassVar[str] = "arXiv 2203.03466"

    def reads(self, run: Run) -> dict[str, float]:
        return {"width": run.rung.d_model}

    def knobs(self, run: Run) -> Knobs:
        return Knobs(self.rate / run.rung.d_model, warmup=self.warmup * run.rung.params)


@dataclass(frozen=True)
class DeepSeek(Rule):
    """DeepSeek LLM (Bi et al. 2024, arXiv 2401.02954): rate and batch by compute alone, which is C = M D with
    M the FLOPs of a token without those of the vocabulary. Runs of a multi-step schedule within 0.25 % of the least
    loss."""

    paper: ClassVar[str] = "arXiv 2401.02954"
    valid: ClassVar[Mapping[str, tuple[float, float]]] = {"C": (1e17, 2e19)}

    def reads(self, run: Run) -> dict[str, float]:
        r = run.rung
        shape = Shape(r.layers, r.d_model, heads=1, d_attn=r.d_model, d_ff=4 * r.d_model, vocab=0, length=run.length)
        return {"C": deepseek(shape) * run.tokens}

    def knobs(self, run: Run) -> Knobs:
        C = self.reads(run)["C"]
        batch = DEEPSEEK_BATCH.predict(C)
        return Knobs(DEEPSEEK_RATE.predict(C), batch, 2000 * batch, 0.95, 0.1)


@dataclass(frozen=True)
class Porian(Rule):
    """Porian et al. 2024 (arXiv 2406.19146): rate and batch by N, head included, at a constant rate without
    decay; as many tokens of warm-up as parameters, and a slower beta2 for small batches. Their weight decay, 1e-4, is
    not multiplied by the rate as ours is."""

    paper: ClassVar[str] = "arXiv 2406.19146"
    valid: ClassVar[Mapping[str, tuple[float, float]]] = {"N": (5e6, 9.01e8)}

    def reads(self, run: Run) -> dict[str, float]:
        return {"N": run.rung.params}

    def knobs(self, run: Run) -> Knobs:
        N = self.reads(run)["N"]
        rate, batch = PORIAN_RATE.predict(N), PORIAN_BATCH.predict(N)
        b2 = 0.99 if batch <= SEQUENCES * run.length else 0.95
        return Knobs(rate, batch, N, b2, 1e-4 / rate)


@dataclass(frozen=True)
class StepLaw(Rule):
    """Step Law (Li et al. 2025, arXiv 2503.04715): rate by N, without the vocabulary, and D; batch by D. Runs of
    a cosine schedule that ends at a fixed rate of 1e-5."""

    paper: ClassVar[str] = "arXiv 2503.04715"
    valid: ClassVar[Mapping[str, tuple[float, float]]] = {"N": (2.1e8, 1.1e9), "D": (4e9, 1e11)}

    def reads(self, run: Run) -> dict[str, float]:
        return {"N": run.rung.params - run.rung.in_vocabulary, "D": run.tokens}

    def knobs(self, run: Run) -> Knobs:
        read = self.reads(run)
        batch = STEP_BATCH.predict(read["D"])
        return Knobs(STEP_RATE.predict(read["N"], read["D"]), batch, 2000 * batch, 0.95, 0.1)


RULES: dict[str, type[Rule]] = {"width": Width, "deepseek": DeepSeek, "porian": Porian, "steplaw": StepLaw}
"""By the names that `--rule` takes."""


def rule_of(name: str, config: ConfigDict) -> Rule:
    """By its name; that of widths has the sweep's own factor and warm-up."""
    if name not in RULES:
        raise UserError(f"--rule={name} is unknown{nearest(name, RULES)}")
    return Width(config.sweep.lr, config.sweep.warmup) if name == "width" else RULES[name]()
