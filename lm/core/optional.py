"""Optional packages: imported where they are used, with an install hint if they are missing."""

import importlib
from typing import Any

from lm.core.errors import UserError


def package(name: str, who: Any, extra: str = "hf") -> Any:
    """Import an optional package. Raises `UserError` that says how to install it."""
    try:
        return importlib.import_module(name)
    except ImportError as e:
        raise UserError(f"{who} needs the package {name.split('.')[0]}: pip install -e '.[{extra}]'") from e
