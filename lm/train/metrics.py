"""What a run tells: JSON lines, a progress bar, a loss curve."""

import json
import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from lm.core.errors import UserError

Record = dict[str, Any]


class Metrics:
    """`metrics.jsonl` in a run's folder: one record per line, each with its step; and the same for TensorBoard.

    One process of a run writes, the others do not."""

    def __init__(self, workdir: Path, tensorboard: bool = False, writes: bool = True) -> None:
        self.path = workdir / "metrics.jsonl"
        self._writes = writes
        self._board = _board(workdir / "tensorboard") if tensorboard and writes else None

    def resume(self, step: int, events: Sequence[Record]) -> None:
        """Go on from `step`, up to which these events have been: what was told of later steps, which a kill or a
        rewind undid, is told again."""
        if not self._writes:
            return
        kept = [r for r in read_metrics(self.path) if r["step"] <= step and "event" not in r]
        written = self.path.with_suffix(".new")  # a kill here must not cost the records
        written.write_text("".join(json.dumps(r) + "\n" for r in [*events, *kept]))
        written.replace(self.path)

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
    """The records of a metrics.jsonl; a last line cut short by a kill is left out."""
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
    return float(f"{value:.7g}") if isinstance(value, float) and math.isfinite(value) else value


def progress_bar(steps: int, done: int, console: Console) -> tuple[Progress, Any]:
    """A bar with loss, bits per byte, tokens/s, MFU and time left; update its task's `status`."""
    progress = Progress(
        BarColumn(bar_width=10),
        MofNCompleteColumn(),
        TextColumn("{task.fields[status]}"),
        TimeRemainingColumn(elapsed_when_finished=True),
        console=console,
        refresh_per_second=2,
    )
    return progress, progress.add_task("train", total=steps, completed=done, status="compiling")


def status(record: Record) -> str:
    """One record as a person reads it."""
    parts = [f"loss {record['loss']:.3f}"]
    if "bits_per_byte" in record:
        parts.append(f"{record['bits_per_byte']:.3f} bits/byte")
    parts.append(f"{record['tokens_per_second']:,.0f} tokens/s")
    parts.append(f"MFU {record['mfu']:.0%}")
    if record["waiting"] > 0.02:
        parts.append(f"waiting for data {record['waiting']:.0%}")
    return ", ".join(parts)


def smooth(values: list[float], keep: float = 0.8) -> list[float]:
    """Exponential moving average, without a bias towards zero at the start."""
    smoothed, total, weight = [], 0.0, 0.0
    for value in values:
        total, weight = keep * total + value, keep * weight + 1
        smoothed.append(total / weight)
    return smoothed


def plot_losses(path: Path, png: Path, title: str) -> None:
    """Training and validation loss against steps, in bits per byte where known, else nats per token."""
    records = read_metrics(path)
    train = [r for r in records if "loss" in r]
    held_out = [r for r in records if "validation_loss" in r]
    unit = "bits_per_byte" if train and "bits_per_byte" in train[0] else "loss"
    figure, axes = plt.subplots(figsize=(7, 4.2), layout="constrained")
    steps, values = [r["step"] for r in train], [r[unit] for r in train]
    axes.plot(steps, values, color="tab:blue", lw=0.8, alpha=0.35)
    axes.plot(steps, smooth(values), color="tab:blue", label="training, smoothed")
    if held_out:
        steps, values = [r["step"] for r in held_out], [r[f"validation_{unit}"] for r in held_out]
        axes.plot(steps, values, "o-", color="tab:red", ms=4, label="validation")
        axes.annotate(
            f"{values[-1]:.3f}", (steps[-1], values[-1]), textcoords="offset points", xytext=(-4, -14), ha="right"
        )
    for i, event in enumerate(r for r in records if "event" in r):
        label = f"{event['event']} after a bad step" if i == 0 else None
        axes.axvline(event["step"], color="tab:orange", lw=1, ls="--", label=label)
    axes.set(xlabel="step", ylabel="bits per byte" if unit == "bits_per_byte" else "loss, nats per token", title=title)
    axes.grid(alpha=0.3)
    if train and max(r[unit] for r in train) > 4 * min(r[unit] for r in train):
        axes.set_yscale("log")
    axes.legend()
    figure.savefig(png, dpi=120)
    plt.close(figure)
