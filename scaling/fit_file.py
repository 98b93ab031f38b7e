"""fit.json, as `python -m scaling.fit` writes it, read back."""

import json
from pathlib import Path
from typing import Any

from lm.core.errors import UserError
from lm.core.formats import FIT, format_of

from .engine import Estimate, from_json
from .laws import LAWS, Frontier


def read_fit(path: str | Path, flag: str) -> Estimate[Frontier]:
    """Raises `UserError`, which names the `flag`, for a file that is missing, no fit of a law, or of a law without a
    frontier: one that does not say how to divide compute between N and D."""
    try:
        saved: Any = json.loads(Path(path).expanduser().read_text(encoding="utf-8"))
    except OSError as e:
        raise UserError(f"--{flag}={path}: {e.strerror}; python -m scaling.fit writes a fit.json") from e
    except json.JSONDecodeError as e:
        raise UserError(f"--{flag}={path} line {e.lineno} is not JSON ({e.msg}); fit again") from e
    if not isinstance(saved, dict) or saved.get("law") not in LAWS or "scatter" not in saved:
        raise UserError(f"--{flag}={path} is no fit of a law; python -m scaling.fit --law=chinchilla writes one")
    format_of(saved, FIT, path)
    law = LAWS[saved["law"]]
    if not issubclass(law, Frontier):
        raise UserError(
            f"--{flag}={path} holds {law.formula}, which does not say how to divide compute between N and D: fit "
            "--law=chinchilla"
        )
    if "flops" not in saved["ranges"]:
        raise UserError(f"--{flag}={path} is of an older version, and lacks the runs' range of FLOPs: fit again")
    return from_json(saved, law)
