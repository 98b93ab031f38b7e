"""Layers of two kinds in config.json, those with a window and those that see everything, read both ways: which is
which, and rotary positions of their own."""

import dataclasses
from typing import Any

from lm.core.errors import UserError
from lm.zoo.dialect import Config, Custom, Knobs
from lm.zoo.parts import GLOBAL, LOCAL
from lm.zoo.rope import NEW, OLD, THETA, Rope, mapping


def layer_kinds(pattern: int) -> Custom:
    """`layer_types`; in older files how many layers make a period, of which the last sees everything, `pattern` where
    nothing is said."""
    names = ("layer_types", "sliding_window_pattern", "_sliding_window_pattern")

    def periodic(layers: int, period: int) -> list[str]:
        return [LOCAL if (i + 1) % period else GLOBAL for i in range(layers)]

    def read(config: Config) -> Knobs:
        told = (config.get(name) for name in names[1:])
        period = next((value for value in told if value is not None), pattern)
        kinds = config.get("layer_types")
        return {"layer_types": tuple(periodic(config["num_hidden_layers"], period) if kinds is None else kinds)}

    def write(knobs: Knobs) -> dict[str, Any]:
        return {"layer_types": list(knobs["layer_types"] or periodic(knobs["layers"], knobs["pattern"]))}

    return Custom(names, read, write)


@dataclasses.dataclass(frozen=True)
class RopeByKind:
    """The rotary knobs of layers that see everything, and `local_theta` and `local_scaling` of those with a window.

    One set of rotary parameters for each kind (transformers 5), or before `rope_theta` and `rope_scaling` of the first
    and the base of the others, `local_name`, where there is such a field; without it is that of `local`. `rope_scaling`
    changes what `rope_parameters` says of the first kind, as in transformers 5."""

    everywhere: Rope
    local: Rope
    local_name: str | None = None

    @property
    def names(self) -> tuple[str, ...]:
        return (*self.everywhere.names, *((self.local_name,) if self.local_name else ()))

    def read(self, config: Config) -> Knobs:
        given, old = mapping(config, NEW), mapping(config, OLD)
        for name in given:
            if name not in (GLOBAL, LOCAL):
                raise UserError(f"{NEW} has {name!r}: give one dict for {GLOBAL}, one for {LOCAL}")
        if "type" in old and "rope_type" not in old | mapping(given, GLOBAL):
            raise UserError(f"{OLD} has 'type', which this model type does not read: call it rope_type")
        plain = {name: value for name, value in config.items() if name not in (NEW, OLD, THETA)}
        local_theta = {THETA: config[self.local_name]} if self.local_name and self.local_name in config else {}
        local = self.local.read({**plain, **local_theta, NEW: mapping(given, LOCAL)})
        theta = {THETA: config[THETA]} if THETA in config else {}
        everywhere = self.everywhere.read({**plain, **theta, NEW: mapping(given, GLOBAL) | old})
        return {**everywhere, "local_theta": local["theta"], "local_scaling": local["scaling"]}

    def write(self, knobs: Knobs) -> dict[str, Any]:
        local = self.local.write({"theta": knobs["local_theta"], "scaling": knobs["local_scaling"]})
        everywhere = self.everywhere.write(knobs)
        return {
            NEW: {
                kind: {THETA: told[THETA], **(told[OLD] or {"rope_type": "default"})}
                for kind, told in ((LOCAL, local), (GLOBAL, everywhere))
            }
        }
