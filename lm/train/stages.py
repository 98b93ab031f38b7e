"""The stages of a run, `config.stages`: what of the config changes from which step on."""

from collections.abc import Mapping
from typing import Any, NamedTuple

from ml_collections.config_dict import ConfigDict

from lm.core.errors import UserError, nearest
from lm.train.config import check, knobs_of, tuples
from lm.train.config_file import part

# Knobs of config.data that a stage may change; the objective may change whole or in its knobs.
DATA = (
    "source",
    "validation",
    "holdout",
    "pattern",
    "field",
    "records",
    "mixture",
    "rates",
    "packing",
    "long",
    "length",
)
OBJECTIVE = "objective"


class StageConfig(NamedTuple):
    """A stage of a run: its config as that of a run without stages."""

    first: int  # step before which it begins, counted from 0
    config: ConfigDict
    changed: dict[str, Any]  # what it says, by knob

    def event(self, before: ConfigDict) -> dict[str, Any]:
        """The metrics record of its beginning."""
        return {
            "event": "stage",
            "step": self.first,
            "changed": {path: [_plain(_at(before, path)), _plain(value)] for path, value in self.changed.items()},
        }


def stages_of(config: ConfigDict) -> tuple[StageConfig, ...]:
    """All stages of a run, the config itself first; each changes something of the one before. Raises `UserError`, for a
    late stage too."""
    now = ConfigDict(config.copy_and_resolve_references())
    with now.unlocked():
        now.stages = ()
    made = [StageConfig(0, now, {})]
    for i, entry in enumerate(tuples(config.stages)):
        where = f"config.stages[{i}]"
        if not (isinstance(entry, tuple) and len(entry) == 2 and isinstance(entry[1], Mapping | ConfigDict)):
            raise UserError(f"{where}={entry!r} is no stage: write (first step, {{'data.mixture': (..), ..}})")
        first, given = entry
        if type(first) is not int or first <= made[-1].first:
            before = f"stage before it, at step {made[-1].first}" if i else "run"
            raise UserError(
                f"{where} begins at step {first!r}: give a whole number after the beginning of the {before}"
            )
        if first >= config.train.steps:
            raise UserError(
                f"{where} begins at step {first}, but the run ends at config.train.steps={config.train.steps}: raise "
                "that, or let the stage begin earlier"
            )
        changed = {str(path): _whole(value) for path, value in dict(given).items()}
        made.append(StageConfig(first, _changed(made[-1].config, changed, where), changed))
    return tuple(made)


def _changed(config: ConfigDict, changed: Mapping[str, Any], where: str) -> ConfigDict:
    now = ConfigDict(config.copy_and_resolve_references())
    if not changed:
        raise UserError(f"{where} changes nothing: name a knob, such as 'data.mixture'")
    with now.unlocked():
        for path, value in changed.items():
            _set(now, path, value, where)
    try:
        check(now)
    except UserError as e:
        raise UserError(f"{where}: {e}") from e
    return now


def _set(config: ConfigDict, path: str, value: Any, where: str) -> None:
    section, _, knob = path.partition(".")
    if path == OBJECTIVE:
        config.objective = part(value, "config.objective")
        return
    if not (section == OBJECTIVE and knob) and not (section == "data" and knob.partition(".")[0] in DATA):
        allowed = [OBJECTIVE, *(f"data.{name}" for name in DATA)]
        known = path in knobs_of(config)
        raise UserError(
            f"{where}: {path} "
            + ("stays as it is through a run" if known else f"is no knob{nearest(path, allowed)}")
            + f"; a stage may change {', '.join(allowed)}"
        )
    *outer, last = path.split(".")
    node: Any = config
    for name in outer:
        node = node.get(name) if isinstance(node, ConfigDict) else None
    if not isinstance(node, ConfigDict) or last not in node:
        raise UserError(f"{where}: config.{path} is no knob{nearest(last, node or ())}")
    try:
        node[last] = ConfigDict(value) if isinstance(value, Mapping) else tuples(value)
    except TypeError as e:
        raise UserError(f"{where}: config.{path}={value!r} is no {type(node[last]).__name__}") from e


def _at(config: ConfigDict, path: str) -> Any:
    node: Any = config
    for name in path.split("."):
        node = node[name]
    return node


def _whole(value: Any) -> Any:
    return value.to_dict() if isinstance(value, ConfigDict) else value


def _plain(value: Any) -> Any:
    """As JSON has it."""
    value = _whole(value)
    if isinstance(value, Mapping):
        return {k: _plain(v) for k, v in value.items()}
    return [_plain(v) for v in value] if isinstance(value, list | tuple) else value
