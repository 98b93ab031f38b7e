"""The folder of a sweep: `config.json` says what its runs have in common, `runs.jsonl` has their records; of the
present command there are `plan.json`, `units.json`, `progress/` and `logs/`."""

import json
from pathlib import Path
from typing import Any

from ml_collections.config_dict import ConfigDict

from lm.core.errors import UserError
from lm.core.formats import KEY, RECORD, SWEEP, format_of
from lm.data.open import Data
from lm.runs.config_json import difference, plain
from lm.runs.upgrade import upgraded_config
from lm.train.config_file import part
from lm.train.record import completed

from .cells import default

Record = dict[str, Any]

# Knobs that may differ between the sweeps that fill one folder, since each record has its own.
OWN = {
    "sweep": ("budgets", "shapes", "seeds", "lr", "lr_power", "lr_factors", "batch_sizes", "warmup", "ratios"),
    "data": ("batch_size", "cache", "workers"),
    "optimizer": ("b2", "weight_decay"),
    "train": ("remat", "remat_names", "unroll"),
}
RUNS, PLAN, UNITS, PROGRESS, LOGS = "runs.jsonl", "plan.json", "units.json", "progress", "logs"


def claim(out: Path, config: ConfigDict, data: Data) -> None:
    """Write `out`/config.json, or check that the sweep it tells of is this one but for the grid."""
    path = out / "config.json"
    ours = {
        KEY: SWEEP.number,
        "config": plain(config),
        "data": {"train": data.digest, "validation": [cache.digest for cache in data.validation]},
    }
    ours = json.loads(json.dumps(ours))
    try:
        out.mkdir(parents=True, exist_ok=True)
        theirs = json.loads(path.read_text(encoding="utf-8")) if path.exists() else ours
        theirs = theirs | {"config": upgraded_config(theirs["config"], format_of(theirs, SWEEP, path))}
        if (where := difference(_identity(ours), _identity(theirs), "")) is not None:
            raise UserError(
                f"{out} holds a sweep with {where[0].lstrip('.')}={where[2]!r}, not {where[1]!r}: its runs cannot be "
                "compared with these; choose another --out, or give the same config"
            )
        replace(path, json.dumps(ours, indent=2) + "\n")
    except OSError as e:
        raise UserError(f"--out={out}: cannot write there ({e.strerror}); name another folder") from e
    except json.JSONDecodeError as e:
        raise UserError(f"{path} is not JSON ({e}); choose another --out, or delete that file") from e


def _identity(saved: Record) -> Record:
    """What runs must share to stand in one fit: not the grid, nor where and how they were computed. Knobs that came
    after the sweep was saved have their defaults."""
    config = {k: v for k, v in completed(saved["config"], plain(default())).items() if k not in ("mesh", "parallel")}
    config["model"] = plain(part(config["model"], "config.model"))
    for section, names in OWN.items():
        config[section] = {k: v for k, v in config[section].items() if k not in names}
    config["data"]["tokenizer"] = config["data"]["tokenizer"] or "byte"
    return {"config": config, "data": saved["data"]}


def records(path: Path) -> list[Record]:
    """Those of runs.jsonl. A last line that a kill cut short counts for nothing: its run is done again."""
    if not path.exists():
        return []
    *whole, _ = path.read_text(encoding="utf-8").split("\n")
    found = []
    for number, line in enumerate(whole, 1):
        try:
            record = json.loads(line)
        except json.JSONDecodeError as e:
            raise UserError(
                f"{path} line {number} is not JSON ({e.msg}); remove the line, its run is done again"
            ) from e
        format_of(record, RECORD, f"{path} line {number}")
        found.append(record)
    return found


def done(path: Path) -> set[str]:
    """The cells that have a result in runs.jsonl; diverged is one, failed is none."""
    return {r["cell"] for r in records(path) if "cell" in r and r.get("failure") is None}


def replace(path: Path, text: str) -> None:
    """Write a file so that whoever reads it sees the old text or the new one."""
    new = path.with_name(f".{path.name}.new")
    new.write_text(text, encoding="utf-8")
    new.replace(path)
