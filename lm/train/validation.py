"""What a run looks at besides its steps: figures on held-out data, and its plots."""

import functools
from collections.abc import Callable
from pathlib import Path

from lm.core.metrics import added, values
from lm.objectives.objective import unit_of
from lm.runs.metrics import PLOT_ERRORS, Record, plot_losses
from lm.runs.router_plots import plot_routers
from lm.train.lines import of_error
from lm.train.prefetch import evaluation_batches
from lm.train.setup import Parts
from lm.train.state import State


def validated(parts: Parts, state: State, batches: int) -> Record:
    """Figures on the held-out data of these parts, of each source at most so many batches (0: all of them)."""
    weights = parts.trainer.averaged(state)
    chosen = [of_source[: batches or None] for of_source in parts.held_out.ranges]
    results = [parts.evaluator(weights, evaluation_batches(parts.held_out, w, parts.sharding)) for w in chosen]
    by_name = {part.name: values(r)["loss"] for part, r in zip(parts.data.parts, results, strict=True)}
    return values(added(results)) | ({"loss_of": by_name} if len(by_name) > 1 else {})


def plot(parts: Parts, metrics: Path, title: str, tell: Callable[[str], None]) -> None:
    """Draw loss.png beside a run's metrics, and of a model with routers routers.png. A failure costs only the plot."""
    losses = functools.partial(plot_losses, unit_of_loss=unit_of(parts.objective))
    plots: dict[str, Callable[..., None]] = {"loss.png": losses, "routers.png": plot_routers}
    for name, draw in plots.items():
        try:
            draw(metrics, metrics.with_name(name), title)
        except PLOT_ERRORS as e:
            tell(f"{name} could not be drawn: {of_error(e)}")
