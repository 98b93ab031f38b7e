"""The next runs of a sweep, from the records of those that were made."""

from typing import NamedTuple

import numpy as np

from lm.core.errors import UserError

from .. import engine
from ..laws import Frontier
from ..records import Runs
from .forecast import some_of
from .optimal import Made, candidates, optimal
from .precision import Noise, Question
from .space import Design, Space

RESAMPLES = 200


def new_seed(runs: Runs) -> int:
    """One that no record has: a run made again with the same would tell nothing."""
    seeds = runs.get("seed", np.zeros(1))
    return 1 + int(seeds.max()) if seeds.dtype.kind == "f" else 1


class Known(NamedTuple):
    """What records say: the law that fits them best, others that may (of arrays [resamples]), the noise of a run."""

    law: Frontier
    laws: Frontier
    noise: float
    delta: float  # the kink of Huber's loss in the fit


def known(law: type[Frontier], runs: Runs, seed: int = 0) -> Known:
    """Raises `UserError` where the runs do not determine the law, or say nothing of their own scatter: then a plan is
    needed, not a refinement."""
    inputs, loss = [runs[name] for name in law.reads], runs[law.target]
    fitted = engine.fit(law, inputs, loss, seed=seed)
    laws = engine.bootstrap(inputs, loss, fitted, resamples=RESAMPLES, seed=seed)
    if laws is None:
        raise UserError(f"{engine.nothing_free(fitted.space)}; python -m scaling.plan without refine plans them")
    noise = np.sqrt(np.mean(engine.scatter(fitted, inputs, loss) ** 2))
    return Known(fitted.law, laws, float(noise), fitted.delta)


def refine(
    space: Space,
    told: Known,
    runs: Runs,
    noise: Noise,
    question: Question,
    flops: float,
    *,
    most: int,
    reach: float,
    seed: int = 0,
) -> Design:
    """The runs that, beside those of the records, leave the answer least uncertain, by several of the laws that may
    hold. Each size begins a trunk of its own, since those of the records are gone."""
    pool = candidates(space, told.law, flops, reach)
    made = Made(runs["params"], runs["tokens"], runs["params"])
    laws = (told.law, *some_of(told.laws))
    found = optimal(space, laws, noise, question, flops, among=pool, made=made, runs=most, seed=seed)
    if not len(found):
        raise UserError(f"--flops={flops:.4g} pays for no run that would tell more: give more")
    return found
