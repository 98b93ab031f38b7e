"""What checkpoints of earlier formats say of themselves, brought to the present format step by step."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from lm.core.formats import CHECKPOINT, KEY, format_of

Meta = dict[str, Any]


def _to_1(meta: Meta) -> Meta:
    """Before formats were counted, these keys came one by one."""
    return {"components": {}, "wording": None, "changes": []} | meta


def _to_2(meta: Meta) -> Meta:
    """Parameters were those of the model itself."""
    return {"transforms": []} | meta


UPGRADES: tuple[Callable[[Meta], Meta], ...] = (_to_1, _to_2)  # UPGRADES[n] makes format n + 1 of format n


def upgraded(meta: Meta, where: str | Path) -> Meta:
    """`meta` of a checkpoint as the present format has it. Raises `UserError`, naming `where`, for a newer one."""
    for upgrade in UPGRADES[format_of(meta, CHECKPOINT, where) :]:
        meta = upgrade(meta)
    return meta | {KEY: CHECKPOINT.number}
