"""Goodput: the share of a run's wall time that went into steps that count. The rest is badput, told apart by what took
it (Google's words, of its papers and tools on ML productivity goodput).

`goodput.jsonl` in a run's folder is a ledger that is only appended to, over all starts of the run, a line each time
that metrics are recorded: whatever kills a process, the lines before stand. The account is a fold over them, so a step
can be found wasted after the fact: those after the checkpoint to which a restart or a recovery returned. Kinds add up
to the wall time since the first start, by construction."""

import contextlib
import json
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

Line = dict[str, Any]
NAME = "goodput.jsonl"
STEPS = "steps"  # time of steps, which is goodput unless they turn out to be wasted
BADPUT = (
    "startup",  # of the first start: opening data, the first state
    "compilation",
    "input",  # devices without a batch
    "checkpoints",  # the loop waits for them: copies to the host, the save before
    "evaluation",  # plots too
    "recovery",  # from bad steps: updates left out, steps gone back over, and the way back
    "restarts",  # from the last line of a killed start until the next one trains; and steps done anew
)


class _Stretch(NamedTuple):
    """Steps `first` + 1 .. `last`, and the time they took."""

    first: int
    last: int
    seconds: float


class Account:
    """What became of a run's wall time so far. Feed it the lines of the ledger in order."""

    def __init__(self) -> None:
        self.seconds = dict.fromkeys((STEPS, *BADPUT), 0.0)
        self.starts = 0
        self._steps: list[_Stretch] = []  # that count so far
        self._at = (0.0, 0)  # time and step of the last line
        self._ended = True

    @property
    def total(self) -> float:
        return sum(self.seconds.values())

    def add(self, line: Mapping[str, Any]) -> None:
        now, step = line["time"], line["step"]
        event = line.get("event")
        if event == "start":
            if not self._ended:
                self.seconds["restarts"] += max(now - self._at[0], 0.0)
            self.starts, self._ended = self.starts + 1, False
            self._lose(step, "restarts")
        for kind, seconds in line.get("seconds", {}).items():
            self._spend(kind, seconds, step, line.get("skipped", 0))
        if event == "rewind":
            self._lose(line["to"], "recovery")
            step = line["to"]
        if event == "end":
            self._ended = True
        self._at = now, step

    def _spend(self, kind: str, seconds: float, step: int, skipped: int) -> None:
        if kind == "startup" and self.starts > 1:
            kind = "restarts"
        if kind != STEPS:
            self.seconds[kind] = self.seconds.get(kind, 0.0) + seconds
            return
        first = self._at[1]
        lost = seconds * min(skipped / max(step - first, 1), 1.0)
        self.seconds["recovery"] += lost
        self.seconds[STEPS] += seconds - lost
        self._steps.append(_Stretch(first, step, seconds - lost))

    def _lose(self, step: int, kind: str) -> None:
        """Steps after `step` are to be done anew: their time is of that kind."""
        while self._steps and self._steps[-1].last > step:
            first, last, seconds = self._steps.pop()
            kept = max(step - first, 0) / (last - first) if last > first else 0.0
            if kept:
                self._steps.append(_Stretch(first, step, seconds * kept))
            self.seconds[STEPS] -= seconds * (1 - kept)
            self.seconds[kind] += seconds * (1 - kept)

    def shares(self) -> dict[str, float]:
        """Of the wall time: `goodput`, and `badput/<kind>` of each kind that took any."""
        if not (total := self.total):
            return {}
        lost = {f"badput/{kind}": s / total for kind, s in self.seconds.items() if kind != STEPS and s > 0}
        return {"goodput": max(self.seconds[STEPS], 0.0) / total, **lost}

    def __str__(self) -> str:
        shares = self.shares()
        lost = sorted(((share, name.partition("/")[2]) for name, share in shares.items() if "/" in name), reverse=True)
        shown = ", ".join(f"{kind} {share:.1%}" for share, kind in lost if share >= 0.0005) or "none"
        starts = f" and {self.starts} starts" if self.starts > 1 else ""
        return f"goodput {shares.get('goodput', 0):.1%} of {_readable(self.total)}{starts}; badput: {shown}"


def _readable(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.1f} s"
    return f"{seconds / 60:.1f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"


class Goodput:
    """The ledger of a start in progress. Time that nothing else claims is of startup until `loop`, then of steps."""

    def __init__(self, workdir: Path, writes: bool = True, clock: Callable[[], float] = time.time) -> None:
        """Time counts from here. `writes`: of several processes only one does."""
        self.path, self.account = workdir / NAME, Account()
        self._writes, self._clock = writes, clock
        self._noted = clock()
        self._unclaimed = "startup"
        self._spent: dict[str, float] = {}  # since the last line
        self._waited = 0.0

    def start(self, step: int) -> None:
        """The run goes on from this step: read what is known of earlier starts, and add this one."""
        for line in read_ledger(self.path):
            self.account.add(line)
        self._add({"event": "start", "time": self._noted, "step": step})

    def loop(self, step: int) -> None:
        """Training begins."""
        self.note(step)
        self._unclaimed = STEPS

    @contextlib.contextmanager
    def spending(self, kind: str) -> Iterator[None]:
        """What is done here is badput of that kind, except what is of another one within. No line is due meanwhile."""
        begun, before = self._clock(), sum(self._spent.values())
        try:
            yield
        finally:
            within = sum(self._spent.values()) - before
            self._spend(kind, self._clock() - begun - within)

    def waited(self, seconds: float) -> None:
        """So long did steps wait for batches in all, by a count that may begin anew."""
        self._spend("input", seconds - (self._waited if seconds >= self._waited else 0.0))
        self._waited = seconds

    def _spend(self, kind: str, seconds: float) -> None:
        self._spent[kind] = self._spent.get(kind, 0.0) + max(seconds, 0.0)

    def note(self, step: int, **more: Any) -> None:
        """Add a line: what became of the time since the last one. `step`: the last that is done; `more`: `skipped`, how
        many updates were left out, or an `event`, which is "rewind" (and `to` which step) or "end"."""
        now = self._clock()
        self._spend(self._unclaimed, now - self._noted - sum(self._spent.values()))
        seconds = {kind: round(spent, 6) for kind, spent in self._spent.items() if spent > 0}
        self._noted, self._spent = now, {}
        self._add({"time": now, "step": step, "seconds": seconds, **more})

    def _add(self, line: Line) -> None:
        self.account.add(line)
        if not self._writes:
            return
        with self.path.open("a+b") as file:
            torn = file.tell() and file.seek(-1, 2) >= 0 and file.read(1) != b"\n"  # by a kill
            file.write(b"\n" * bool(torn) + json.dumps(line).encode() + b"\n")


def read_ledger(path: Path) -> list[Line]:
    """The lines of a goodput.jsonl, without those that a kill cut short."""
    lines = []
    for text in path.read_text(encoding="utf-8", errors="replace").splitlines() if path.exists() else ():
        with contextlib.suppress(ValueError):
            lines.append(json.loads(text))
    return [line for line in lines if isinstance(line, dict) and {"time", "step"} <= line.keys()]
