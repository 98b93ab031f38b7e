"""What files of earlier formats say, brought to the present format step by step: the config of runs and sweeps, and what
checkpoints say of themselves."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from lm.core.formats import CHECKPOINT, KEY, format_of

Meta = dict[str, Any]

# Where knobs are now that moved. Once there was one flat section for all optimizers and schedules, and the weights of
# auxiliary losses, now in a table of any losses by name, were two knobs.
MOVED = {
    "objective.loss.balance": "objective.loss.aux[0][1]",
    "objective.loss.router_z": "objective.loss.aux[1][1]",
    "optimizer.name": "optimizer.type",
    "optimizer.decay": "optimizer.decay_rules",
    "optimizer.rates": "optimizer.lr_multipliers",
    "optimizer.schedule": "schedule.type",
    "optimizer.warmup": "schedule.warmup",
    "optimizer.final": "schedule.final_lr_ratio",
    "optimizer.cooldown": "schedule.cooldown_fraction",
}
# By their names of then: the component, and those of its own knobs that were said by another name, or by a shared one.
OPTIMIZERS = {
    "adamw": ("AdamW", {"b1": "b1", "b2": "b2", "eps": "eps"}),
    "adafactor": ("Adafactor", {}),
    "lion": ("Lion", {"b1": "b1", "b2": "b2"}),
    "muon": ("Muon", {"beta": "b1", "b1": "b1", "b2": "b2", "eps": "eps"}),
    "sgd": ("SGD", {"momentum": "b1"}),
}
SCHEDULES = {
    "cosine": ("Cosine", {"final_lr_ratio": "final"}),
    "linear": ("Linear", {"final_lr_ratio": "final"}),
    "inverse_sqrt": ("InverseSqrt", {}),
    "constant": ("ConstantRate", {}),
    "wsd": ("WSD", {"final_lr_ratio": "final", "cooldown_fraction": "cooldown"}),
}
SHARED = {"decay_rules": "decay", "lr_multipliers": "rates"}  # of every optimizer; the others kept their names
ONCE = ("name", "schedule", "warmup", "final", "cooldown", "b1", "b2", "eps", "decay", "rates")


def _optimizer_apart(config: Meta) -> Meta:
    """Optimizer and schedule became components, each with its own knobs. What a config does not say is left unsaid."""
    old = config.get("optimizer")
    if not isinstance(old, Mapping) or "type" in old:
        return config
    kind, own = OPTIMIZERS.get(old.get("name", "adamw"), (old.get("name"), {n: n for n in ("b1", "b2", "eps")}))
    kept = {now: old[then] for now, then in {**SHARED, **own}.items() if then in old}
    new = {**config, "optimizer": {"type": kind, **{k: v for k, v in old.items() if k not in ONCE}, **kept}}
    if any(name in old for name in ("schedule", "warmup", "final", "cooldown")):
        name = old.get("schedule", "wsd" if "sweep" in config else "cosine")  # which a sweep took without saying so
        kind, own = SCHEDULES.get(name, (name, {"final_lr_ratio": "final", "cooldown_fraction": "cooldown"}))
        new["schedule"] = {"type": kind, **{now: old[then] for now, then in {"warmup": "warmup", **own}.items() if then in old}}
    return new


FAMILY_KNOBS = {"farthest": "max_distance", "most": "max_global"}  # of T5 and its like, of Longformer's


def _to_config_2(config: Meta) -> Meta:
    """Knobs of families have the field's names, too."""
    config = _optimizer_apart(config)
    model = config.get("model")
    if not isinstance(model, Mapping) or "family" not in model:
        return config
    return {**config, "model": {FAMILY_KNOBS.get(name, name): value for name, value in model.items()}}


CONFIG: tuple[Callable[[Meta], Meta], ...] = (dict, _to_config_2)  # CONFIG[n] makes format n + 1 of format n


def upgraded_config(config: Meta, number: int) -> Meta:
    """The config of a run or sweep of that format as the present one has it."""
    for upgrade in CONFIG[number:]:
        config = upgrade(config)
    return config


def _to_1(meta: Meta) -> Meta:
    """Before formats were counted, these keys came one by one."""
    return {"components": {}, "wording": None, "changes": []} | meta


def _to_2(meta: Meta) -> Meta:
    """Parameters were those of the model itself."""
    return {"transforms": []} | meta


def _to_3(meta: Meta) -> Meta:
    return meta | {"config": _to_config_2(meta["config"])}


UPGRADES: tuple[Callable[[Meta], Meta], ...] = (_to_1, _to_2, _to_3)  # UPGRADES[n] makes format n + 1 of format n


def upgraded(meta: Meta, where: str | Path) -> Meta:
    """`meta` of a checkpoint as the present format has it. Raises `UserError`, naming `where`, for a newer one."""
    for upgrade in UPGRADES[format_of(meta, CHECKPOINT, where) :]:
        meta = upgrade(meta)
    return meta | {KEY: CHECKPOINT.number}
