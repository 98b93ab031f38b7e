"""Rotary positions in config.json: base, share of each head and scaling, in the spelling of transformers 5
(`rope_parameters`) and before (`rope_scaling` and fields beside it), read both ways."""

import dataclasses
import math
from collections.abc import Callable, Mapping
from typing import Any

from lm.core.errors import UserError, nearest
from lm.hub.tables.format import Config, Knobs, number
from lm.model.rotary import (
    DynamicScaling,
    FrequencyScaling,
    LinearScaling,
    LongScaling,
    Scaling,
    YarnScaling,
    yarn_magnitude,
)
from lm.zoo.parts import GLOBAL, LOCAL

NEW, OLD = "rope_parameters", "rope_scaling"
THETA, FRACTION = "rope_theta", "partial_rotary_factor"
ORIGINAL, LONGEST = "original_max_position_embeddings", "max_position_embeddings"


@dataclasses.dataclass(frozen=True)
class Rope:
    """The rotary knobs `theta`, `scaling` and, where a family rotates a part of each head only, `fraction`.

    Reads `rope_parameters` (transformers 5) and `rope_theta`, `rope_scaling`, `partial_rotary_factor` (before), and
    writes the latter, which both understand. `longest` is the model type's own default of max_position_embeddings,
    from which some scalings start; with `original_beside` it says where they start in a field of its own, beside the
    dict, which wins. `reread`: transformers reads a text anew when it grows past the original length."""

    theta: float = 10000.0
    fraction: float | None = None
    longest: int = 2048
    theta_key: str = THETA
    fraction_key: str = FRACTION
    original_beside: bool = False
    reread: bool = False

    @property
    def keys(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys((NEW, OLD, self.theta_key, self.fraction_key, ORIGINAL, LONGEST)))

    def read(self, config: Config) -> Knobs:
        given = self.given(config)
        knobs: Knobs = {
            "theta": number(self.theta_key, given[THETA], above=0),
            "scaling": self._scaling(given, config),
        }
        fraction = given.get(FRACTION)
        if self.fraction is not None:
            knobs["fraction"] = number(self.fraction_key, fraction, above=0, most=1)
        elif fraction not in (None, 1, 1.0):
            raise UserError(f"{self.fraction_key}={fraction!r} is not supported: this model type rotates whole heads")
        return knobs

    def given(self, config: Config) -> dict[str, Any]:
        """The rotary parameters that count where a config has them in both spellings, as in transformers 5:
        `rope_scaling`, if it says anything, stands in place of the whole of `rope_parameters`; a base or share that is
        not within stands beside.

        Raises `UserError` where a base or share that the config gives would thereby be passed over."""
        new, old = (mapping(config, name) for name in (NEW, OLD))
        given = dict(old or new)
        for name, beside, default in (
            (THETA, self.theta_key, self.theta),
            (FRACTION, self.fraction_key, self.fraction),
        ):
            if name not in given and beside not in config and new.get(name, default) != default:
                raise UserError(
                    f"{OLD} stands in place of {NEW}, whose {name}={new[name]!r} would be lost: give {beside} too"
                )
            if name not in given and (beside in config or default is not None):
                given[name] = config.get(beside, default)
            if name != beside and config.get(name, given.get(name)) != given.get(name):
                raise UserError(
                    f"{name}={config[name]!r} is not what {beside} or {NEW} says, {given.get(name)!r}: keep one of them"
                )
        return given

    def _scaling(self, given: dict[str, Any], config: Config) -> Scaling | None:
        kind = given.get("rope_type", given.get("type", "default"))
        longest = int(number(LONGEST, config.get(LONGEST, self.longest), above=0, whole=True))
        if kind == "default":
            return None
        known: dict[str, Callable[[], Scaling]] = {
            "linear": lambda: LinearScaling(_of(given, "factor")),
            "dynamic": lambda: DynamicScaling(_of(given, "factor"), longest),
            "yarn": lambda: _yarn(given, longest, self._original(given, config, longest)),
            "longrope": lambda: _long(given, longest, self._original(given, config, longest), self.reread),
            "llama3": lambda: FrequencyScaling(
                _of(given, "factor"),
                _of(given, "low_freq_factor"),
                _of(given, "high_freq_factor"),
                self._original(given, config, longest),
            ),
        }
        known["su"] = known["longrope"]  # its first name
        if kind not in [*known]:
            raise UserError(f"rope_type={kind!r} is not supported{nearest(str(kind), known)}")
        try:
            return known[kind]()
        except KeyError as e:
            raise UserError(f"rope_type={kind!r} needs {e.args[0]!r}: the config does not have it") from e

    def _original(self, given: dict[str, Any], config: Config, longest: int) -> int:
        """How long texts were before scaling."""
        beside = config.get(ORIGINAL)
        if self.original_beside:
            original = given.get(ORIGINAL, longest) if beside is None else beside
        else:  # transformers reads it from the dict alone
            original = given.get(ORIGINAL, longest)
            if beside not in (None, original):
                raise UserError(
                    f"{ORIGINAL}={beside!r} is not what the rotary parameters say, {original!r}: write it into {OLD}"
                )
        return int(number(ORIGINAL, longest if original is None else original, above=0, whole=True))

    def write(self, knobs: Knobs) -> dict[str, Any]:
        config: dict[str, Any] = {self.theta_key: knobs["theta"], OLD: _scaling_dict(knobs["scaling"])}
        if self.fraction is not None:
            config[self.fraction_key] = knobs["fraction"]
        if isinstance(knobs["scaling"], DynamicScaling):
            config[LONGEST] = knobs["scaling"].original
        if isinstance(knobs["scaling"], LongScaling):
            config[ORIGINAL] = knobs["scaling"].original
        return config


@dataclasses.dataclass(frozen=True)
class RopeByLayer:
    """The rotary knobs of layers of two kinds: those that see all (`everywhere`), and those with a window (`local`),
    whose knobs are `local_theta` and `local_scaling`. A config has a dict of parameters for each kind, by its name in
    `layer_types`, or the bases in fields of their own. `scaled`: the kinds that an older `rope_scaling` changes."""

    everywhere: Rope
    local: Rope
    scaled: tuple[str, ...] = (GLOBAL, LOCAL)

    @property
    def keys(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys((*self.everywhere.keys, *self.local.keys)))

    def read(self, config: Config) -> Knobs:
        given, old = mapping(config, NEW), mapping(config, OLD)
        for name in given:
            if name not in (GLOBAL, LOCAL):
                raise UserError(f"{NEW} has {name!r}: give one dict for {GLOBAL}, one for {LOCAL}")
        plain = {name: value for name, value in config.items() if name not in (NEW, OLD)}

        def one(rope: Rope, kind: str) -> Knobs:
            own = mapping(given, kind)
            if kind in self.scaled and "type" in old and "rope_type" not in old | own:
                raise UserError(f"{OLD} has 'type', which this model type does not read: call it rope_type")
            other = () if rope.theta_key == THETA else (THETA,)
            flat = {name: value for name, value in plain.items() if name not in other}
            return rope.read({**flat, NEW: own | (old if kind in self.scaled else {})})

        local = one(self.local, LOCAL)
        return one(self.everywhere, GLOBAL) | {f"local_{name}": local[name] for name in ("theta", "scaling")}

    def write(self, knobs: Knobs) -> dict[str, Any]:
        local = {name: knobs[f"local_{name}"] for name in ("theta", "scaling")}
        kinds = ((LOCAL, self.local, local), (GLOBAL, self.everywhere, knobs))
        written = {kind: (rope.theta_key, rope.write(own)) for kind, rope, own in kinds}
        return {
            NEW: {k: {THETA: w[theta], **(w[OLD] or {"rope_type": "default"})} for k, (theta, w) in written.items()}
        }


def mapping(config: Config, name: str) -> dict[str, Any]:
    """What a config's field holds, which is a dict or nothing."""
    value = config.get(name)
    if value is not None and not isinstance(value, Mapping):
        raise UserError(f"{name}={value!r} is not understood: give a dict, or leave it out")
    return dict(value or {})


def _of(given: Mapping[str, Any], name: str) -> float:
    """A number of the rotary parameters. Raises `KeyError` where it is not there."""
    return number(f"{OLD}.{name}", given[name], above=0)


def _or(given: Mapping[str, Any], name: str, default: float) -> float:
    return _of(given, name) if given.get(name) is not None else default


def _yarn(given: dict[str, Any], longest: int, original: int) -> YarnScaling:
    factor = _or(given, "factor", longest / original)
    magnitude, one, all_ = given.get("attention_factor"), given.get("mscale"), given.get("mscale_all_dim")
    if magnitude is None and one and all_:
        magnitude = yarn_magnitude(factor, _of(given, "mscale")) / yarn_magnitude(factor, _of(given, "mscale_all_dim"))
    return YarnScaling(
        factor,
        original,
        _of(given, "beta_fast") if given.get("beta_fast") else 32.0,
        _of(given, "beta_slow") if given.get("beta_slow") else 1.0,
        None if magnitude is None else number(f"{OLD}.attention_factor", magnitude),
        bool(given.get("truncate", True)),
    )


def _long(given: dict[str, Any], longest: int, original: int, reread: bool) -> LongScaling:
    factor = _or(given, "factor", longest / original)
    magnitude = given.get("attention_factor")
    if magnitude is None:
        if factor > 1 and original < 2:
            raise UserError(f"{ORIGINAL}={original} is too short to scale from: give 2 or more")
        magnitude = math.sqrt(1 + math.log(factor) / math.log(original)) if factor > 1 else 1.0
    short, long = (_divisors(given, f"{name}_factor") for name in ("short", "long"))
    return LongScaling(short, long, original, number(f"{OLD}.attention_factor", magnitude), reread)


def _divisors(given: Mapping[str, Any], name: str) -> tuple[float, ...]:
    values = given[name]
    if not isinstance(values, list):
        raise UserError(f"{OLD}.{name}={values!r} is not understood: give a list of numbers")
    return tuple(number(f"{OLD}.{name}", value, above=0) for value in values)


def _scaling_dict(scaling: Scaling | None) -> dict[str, Any] | None:
    match scaling:
        case None:
            return None
        case LinearScaling(factor):
            return {"rope_type": "linear", "factor": factor}
        case DynamicScaling(factor, _):
            return {"rope_type": "dynamic", "factor": factor}
        case YarnScaling(factor, original, fast, slow, magnitude, rounded):
            return {
                "rope_type": "yarn",
                "factor": factor,
                "original_max_position_embeddings": original,
                "beta_fast": fast,
                "beta_slow": slow,
                "attention_factor": magnitude,
                "truncate": rounded,
            }
        case LongScaling(short, long, original, magnitude):
            return {
                "rope_type": "longrope",
                "short_factor": list(short),
                "long_factor": list(long),
                "original_max_position_embeddings": original,
                "attention_factor": magnitude,
            }
        case FrequencyScaling(factor, low, high, original):
            return {
                "rope_type": "llama3",
                "factor": factor,
                "low_freq_factor": low,
                "high_freq_factor": high,
                "original_max_position_embeddings": original,
            }
    raise UserError(f"{type(scaling).__name__} has no name in config.json: export a model without it")
