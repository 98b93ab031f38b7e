"""A run's config as JSON."""

from pathlib import Path
from typing import Any

import numpy as np
from ml_collections.config_dict import ConfigDict

from lm.core.errors import UserError


def plain(config: ConfigDict) -> dict:
    """A config as plain JSON values. Raises `UserError` for a value that JSON cannot hold: such a run could be neither
    checkpointed nor repeated."""
    return {k: _plain(v, f"config.{k}") for k, v in config.to_dict().items()}


def _plain(value: Any, where: str) -> Any:
    if isinstance(value, dict):
        return {k: _plain(v, f"{where}.{k}") for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(v, f"{where}[{i}]") for i, v in enumerate(value)]
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, Path):
        return str(value)
    if value is None or isinstance(value, bool | int | float | str):
        return value
    raise UserError(
        f"{where} is a {type(value).__name__}, which config.json and checkpoints cannot hold: give numbers, texts, "
        "lists, or a component as to_dict(..)"
    )


def difference(a: Any, b: Any, where: str) -> tuple[str, Any, Any] | None:
    """The path of the first difference between two JSON values, with both values."""
    if isinstance(a, dict) and isinstance(b, dict) and a.keys() == b.keys():
        return next((d for k in a if (d := difference(a[k], b[k], f"{where}.{k}"))), None)
    if isinstance(a, list) and isinstance(b, list) and len(a) == len(b):
        return next((d for i in range(len(a)) if (d := difference(a[i], b[i], f"{where}[{i}]"))), None)
    return None if a == b else (where, a, b)
