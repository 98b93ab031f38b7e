"""What made a run: config.json of its first start, which is never overwritten, and what later starts changed."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from lm.core.component import canonical
from lm.core.formats import KEY, RUN
from lm.runs.config_json import plain
from lm.train.config import default

NAME = "config.json"
OPEN = ("model", "objective", "optimizer", "schedule")  # sections whose knobs depend on what is chosen
# A metrics record, which every later checkpoint holds too: {event: "change", step, changed: {knob: [before, now]}}.
Change = dict[str, Any]


def keep(workdir: Path, config: dict, begins: bool) -> Path | None:
    """Write config.json, unless it is there. Of a run that `begins` anew, since nothing was saved of what stood there
    before, an earlier one with other values is renamed; returns its new name."""
    path, text = workdir / NAME, json.dumps({KEY: RUN.number, **config}, indent=2) + "\n"
    aside = None
    if path.exists():
        if not begins or _same(path, config):
            return None
        taken = (workdir / f"config.{n}.json" for n in range(1, 10**6))
        aside = next(name for name in taken if not name.exists())
        path.rename(aside)
    unfinished = workdir / f"{NAME}.new"
    unfinished.write_text(text, encoding="utf-8")
    unfinished.replace(path)
    return aside


def _same(path: Path, config: dict) -> bool:
    try:
        return json.loads(path.read_text(encoding="utf-8")) in ({KEY: RUN.number, **config}, config)
    except ValueError:
        return False


def completed(saved: dict, known: dict | None = None) -> dict:
    """A saved config with the defaults of knobs that were not there when it was saved, and present component names.
    `known`: all knobs with their defaults, those of a run by default."""
    known = plain(default()) if known is None else known
    chosen = {k: canonical(saved.get(k, known[k])) for k in known if k in OPEN}
    return canonical(saved) | chosen | {k: _over(known[k], saved.get(k, known[k])) for k in known if k not in OPEN}


def _over(known: Any, saved: Any) -> Any:
    if not (isinstance(known, dict) and isinstance(saved, dict)):
        return saved
    if "type" in known:  # a component, whose knobs depend on which
        return canonical(saved)
    return known | {k: _over(known.get(k), v) for k, v in saved.items()}


def changed(before: dict, now: dict) -> dict[str, list]:
    """{knob: [before, now]} of two configs; not where the cache lies, which may move."""
    old, new = (dict(_leaves(c)) for c in (before, now))
    names = [k for k in {**old, **new} if k != "data.cache" and old.get(k) != new.get(k)]
    return {k: [old.get(k), new.get(k)] for k in names}


def _leaves(value: Any, where: str = "") -> Iterator[tuple[str, Any]]:
    if isinstance(value, dict):
        for k, v in value.items():
            yield from _leaves(v, f"{where}.{k}" if where else k)
    else:
        yield where, value


def describe(changes: dict[str, list]) -> str:
    """Changes as a person reads them."""
    return ", ".join(f"{knob} {before!r} -> {now!r}" for knob, (before, now) in changes.items())
