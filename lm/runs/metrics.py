"""What a run records as it goes: metrics as JSON lines, and a loss curve."""

import json
import logging
import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt

from lm.core.errors import UserError

Record = dict[str, Any]
MARKS = {"change": ("config changed", "tab:gray"), "stage": ("another stage begins", "tab:green")}  # of a plot
OF_PART = "loss/"  # begins the name of the loss of a part of a run: an objective of several, or a source
# What can go wrong while plotting: none of it should end a run.
PLOT_ERRORS = (ArithmeticError, AttributeError, ImportError, LookupError, OSError, RuntimeError, TypeError, ValueError)
logging.getLogger("matplotlib").setLevel(logging.ERROR)  # it logs every font it finds


class MetricsLog:
    """`metrics.jsonl` in a run's folder: one record per line, each with its step; and the same for TensorBoard.

    Only one process of a run writes."""

    def __init__(self, workdir: Path, tensorboard: bool = False, writes: bool = True) -> None:
        self.path = workdir / "metrics.jsonl"
        self._writes = writes
        self._board = _board(workdir / "tensorboard") if tensorboard and writes else None

    def resume(self, step: int, events: Sequence[Record]) -> None:
        """Resume at `step`: drop the records of later steps, which will be run again, and keep `events`."""
        if not self._writes:
            return
        kept = [r for r in read_metrics(self.path) if r["step"] <= step and "event" not in r]
        written = self.path.with_suffix(".new")  # a kill here must not cost the records
        written.write_text("".join(json.dumps(r) + "\n" for r in [*events, *kept]))
        written.replace(self.path)

    def evaluated(self, step: int) -> bool:
        return any(r["step"] == step and "validation_loss" in r for r in read_metrics(self.path))

    def close(self) -> None:
        if self._board is not None:
            self._board.close()

    def write(self, record: Record) -> None:
        if not self._writes:
            return
        with self.path.open("a") as file:
            file.write(json.dumps({k: _short(v) for k, v in record.items()}) + "\n")
        if self._board is not None:
            for name, value in record.items():
                if name != "step" and isinstance(value, int | float):
                    self._board.add_scalar(name, value, record["step"])


def read_metrics(path: Path) -> list[Record]:
    """The records of a metrics.jsonl, without a last line that a kill cut short."""
    return list(_records(path)) if path.exists() else []


def _board(folder: Path) -> Any:
    try:
        from tensorboardX import SummaryWriter
    except ImportError as e:
        raise UserError("config.log.tensorboard needs the package tensorboardX: pip install -e '.[board]'") from e
    return SummaryWriter(str(folder))


def _records(path: Path) -> Iterator[Record]:
    for line in path.read_text().splitlines():
        try:
            yield json.loads(line)
        except json.JSONDecodeError:
            return


def _short(value: Any) -> Any:
    if isinstance(value, list):  # of figures that are drawn, not compared
        return [float(f"{v:.5g}") if isinstance(v, float) else _short(v) for v in value]
    return float(f"{value:.7g}") if isinstance(value, float) and math.isfinite(value) else value


def smooth(values: Sequence[float], keep: float = 0.8) -> list[float]:
    """Exponential moving average, without a bias towards zero at the start."""
    smoothed, total, weight = [], 0.0, 0.0
    for value in values:
        total, weight = keep * total + value, keep * weight + 1
        smoothed.append(total / weight)
    return smoothed


def plot_losses(path: Path, png: Path, title: str, unit_of_loss: str = "") -> None:
    """Training and validation loss against steps, in bits per byte where known, else in its own unit; below them, where
    a run has several objectives or sources, the loss of each."""
    records = read_metrics(path)
    unit = "bits_per_byte" if any("bits_per_byte" in r for r in records) else "loss"
    train = [(r["step"], r[unit]) for r in records if unit in r]
    held_out = [(r["step"], r[f"validation_{unit}"]) for r in records if f"validation_{unit}" in r]
    parts = sorted({name for r in records for name in r if name.startswith(OF_PART)})
    panels = 2 if parts else 1
    figure, drawn = plt.subplots(panels, figsize=(7, 4.2 * panels), layout="constrained", sharex=True, squeeze=False)
    axes = drawn[0, 0]
    if train:
        steps, values = zip(*train, strict=True)
        axes.plot(steps, values, color="tab:blue", lw=0.8, alpha=0.35, label="training, single batches")
        # While the loss falls, a mean of past losses lies above the current one.
        axes.plot(steps, smooth(values), color="tab:blue", label="training, mean of recent batches (lags behind)")
    if held_out:
        steps, values = zip(*held_out, strict=True)
        axes.plot(steps, values, "o-", color="tab:red", ms=4, label="validation, other text, at that step")
        axes.annotate(
            f"{values[-1]:.3f}", (steps[-1], values[-1]), textcoords="offset points", xytext=(-4, -14), ha="right"
        )
    marked: set[str] = set()
    for event in (r for r in records if "event" in r):
        label, color = MARKS.get(event["event"], (f"{event['event']} after a bad step", "tab:orange"))
        axes.axvline(event["step"], color=color, lw=1, ls="--", label=None if label in marked else label)
        marked.add(label)
    loss = f"loss{unit_of_loss and f', {unit_of_loss}'}"
    axes.set(xlabel="step", ylabel="bits per byte" if unit == "bits_per_byte" else loss, title=title)
    axes.grid(alpha=0.3)
    if train and max(v for _, v in train) > 4 * min(v for _, v in train) > 0:
        axes.set_yscale("log")
    if axes.get_legend_handles_labels()[0]:
        axes.legend()
    if parts:
        _plot_parts(drawn[1, 0], records, parts, f"loss of each part{unit_of_loss and f', {unit_of_loss}'}")
    figure.savefig(png, dpi=120)
    plt.close(figure)


def _plot_parts(axes: Any, records: Sequence[Record], parts: Sequence[str], label: str) -> None:
    """The loss of each part, a line each: a mean of recent batches, and points where other text was evaluated."""
    for part in parts:
        name = part.removeprefix(OF_PART)
        points = [(r["step"], r[part]) for r in records if part in r]
        steps, values = zip(*points, strict=True)
        (line,) = axes.plot(steps, smooth(values), label=name)
        held_out = [(r["step"], v) for r in records if (v := _held_out(r, name)) is not None]
        if held_out:
            axes.plot(*zip(*held_out, strict=True), "o", ms=4, color=line.get_color())
    axes.set(xlabel="step", ylabel=label)
    axes.grid(alpha=0.3)
    axes.legend()


def _held_out(record: Record, name: str) -> float | None:
    """The validation loss of a part."""
    of_source = record.get("validation_loss_of", {})
    named = [loss for source, loss in of_source.items() if source == name or Path(source).name == name]
    return record.get(f"validation_{OF_PART}{name}", named[0] if len(named) == 1 else None)
