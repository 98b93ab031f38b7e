"""A run's config as JSON has it."""

from pathlib import Path
from typing import Any

import numpy as np
from ml_collections.config_dict import ConfigDict

from lm.core.errors import UserError


def plain(config: ConfigDict) -> dict:
    """A config as JSON has it. Raises `UserError` for a value that JSON cannot hold, of which no run could be repeated
    and no checkpoint saved."""
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
