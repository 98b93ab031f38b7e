"""Knobs of a sweep from the records of a smaller one, which compared learning rates and batch sizes."""

import math
from pathlib import Path

import numpy as np

from lm.core.errors import UserError

from .records import Runs, read_runs
from .tuning import lowest, surface

CELL = ("budget", "d_model")


def tuned(path: Path) -> tuple[tuple[str, str], ...]:
    """(knob, value) of sweep.lr, sweep.lr_power and data.batch_size.

    The batch size is that whose best runs have the lower losses. The best rate of each budget and width is the minimum
    of a parabola in its log, through the runs of all batch sizes and within the rates that were tried; over widths it
    is a power law. Raises `UserError` where columns are missing or no width has a best rate."""
    runs = read_runs(path, where=["loss"])
    for need in (*CELL, "learning_rate", "batch_size"):
        if need not in runs:
            raise UserError(f"--tuned={path} has no column {need!r}: give the runs.jsonl of a sweep")
    try:
        best = surface(runs, CELL, ("learning_rate",), within=math.inf)
    except UserError as e:
        raise UserError(f"--tuned={path}: {e}: sweep with config.sweep.lr_factors=0.5,1,2 and batch_sizes=4,8") from e
    tried = runs["learning_rate"]
    of = [tried[np.all([runs[name] == best[name][i] for name in CELL], axis=0)] for i in range(len(best["loss"]))]
    rates = np.clip(best["learning_rate"], [r.min() for r in of], [r.max() for r in of])
    widths = best["d_model"]
    power = np.polyfit(np.log(widths), np.log(rates), 1)[0] if len(set(widths)) > 1 else -1.0
    scale = np.exp(np.mean(np.log(rates) - power * np.log(widths)))
    return (
        ("sweep.lr", f"{scale:.4g}"),
        ("sweep.lr_power", f"{power:.4g}"),
        ("data.batch_size", str(_batch_size(runs))),
    )


def _batch_size(runs: Runs) -> int:
    """That of the lower losses, over the budgets and widths that tried all of them."""
    best = lowest(runs, (*CELL, "batch_size"))
    sizes = np.unique(best["batch_size"])
    points = sorted(set(zip(best["budget"], best["d_model"], strict=True)))
    losses = np.full((len(points), len(sizes)), np.inf)
    for budget, width, rows, loss in zip(*(best[name] for name in (*CELL, "batch_size", "loss")), strict=True):
        losses[points.index((budget, width)), np.searchsorted(sizes, rows)] = loss
    whole = np.isfinite(losses).all(axis=1)
    return int(sizes[np.argmin(losses[whole].mean(axis=0))] if whole.any() else sizes[0])
