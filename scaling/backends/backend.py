"""The protocol of backends."""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol


class Backend(Protocol):
    """Starts units (see `scaling.worker`). A unit that runs no longer has ended, well or not: its records tell."""

    def start(self, units: Sequence[int]) -> None:
        """Have these units run, when there is room for them. Each writes to `log_of` it."""

    def running(self) -> set[int]:
        """Those that run, or wait for their turn."""

    def stop(self) -> None:
        """End whatever still runs."""


def command(out: Path, unit: int | str, *more: str) -> list[str]:
    """What runs a unit."""
    return [sys.executable, "-m", "scaling.worker", f"--out={out}", f"--unit={unit}", *more]


def log_of(out: Path, unit: int) -> Path:
    return out / "logs" / f"{unit}.log"
