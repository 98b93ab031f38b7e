"""The initial state of a run: step 0, or its latest checkpoint or a later local copy, if that is of the same run."""

import json
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np

from lm.adapt.surgery.surgery import Surgery
from lm.core.component import canonical
from lm.core.errors import UserError
from lm.core.param import flatten
from lm.runs.checkpoint import Checkpoints
from lm.runs.config_json import difference
from lm.runs.local import LocalCopies, default_folder, run_id
from lm.train.config import LogConfig, tuples
from lm.train.health.recovery import lowered
from lm.train.initial import initial_params
from lm.train.optim.bound import by_pattern, trained
from lm.train.optim.release import Release
from lm.train.record import completed
from lm.train.state import State, copied_state, saved_state, wanted
from lm.train.step import Trainer


def new_state(trainer: Trainer, hyper: dict, init_from: str, surgery: Sequence[Surgery] = ()) -> State:
    """The state at step 0, with parameters from the folder `init_from` if it is set, after `surgery`."""
    params = None
    if init_from:
        like, sharding = trainer.abstract_model(), trainer.sharding
        params = initial_params(init_from, trainer.model, like, sharding, surgery, trainer.seed)
    return trainer.init(hyper, params)


def local_copies(log: LogConfig, workdir: Path, chief: bool, tell: Callable[[str], None]) -> LocalCopies | None:
    """Those of a run, if it makes any."""
    if not log.local_checkpoint_every:
        return None
    folder = Path(log.local_dir).expanduser() if log.local_dir else default_folder()
    by = "" if jax.process_count() == 1 else f"process {jax.process_index()}: "
    says = tell if chief else lambda line: print(f"{by}{line}", file=sys.stderr)  # each knows its own disk
    return LocalCopies(folder / run_id(workdir, chief), says)


def resume_or_start(
    trainer: Trainer,
    hyper: dict,
    checkpoints: Checkpoints,
    meta: dict,
    surgery: Sequence[Surgery] = (),
    copies: LocalCopies | None = None,
) -> tuple[State, dict]:
    """The state at step 0, at the latest checkpoint or at a later local copy, and its meta (`meta` itself at step 0).

    Raises `UserError` if that is of another model, objective, seed or data."""
    latest = checkpoints.latest or 0
    copy = copies.newest(wanted(trainer.abstract(hyper)), after=latest) if copies else None
    if not (copy or latest):
        return new_state(trainer, hyper, meta["config"]["train"]["init_from"], surgery), meta
    saved = copy.meta if copy else checkpoints.meta(latest)
    _check_same(meta, saved, checkpoints.path)
    _check_frozen(trainer, completed(saved["config"]))
    _check_released(trainer, completed(saved["config"]))
    hyper = lowered(hyper, saved["events"])
    like = trainer.abstract(hyper)
    state = copied_state(copy, like, hyper) if copy else saved_state(checkpoints, latest, like, hyper)
    if copies:
        copies.forget(after=int(state.step))  # those which could not be used, of steps that are done anew
    return state, saved


def _check_same(meta: dict, saved: dict, where: Path) -> None:
    """Raise `UserError` if what was saved is of another run."""
    trees = {name: canonical(saved[name]) for name in ("model", "transforms")}
    ours, theirs = _identity(meta), _identity(saved | trees | {"config": completed(saved["config"])})
    for name in ours:
        if (at := difference(ours[name], theirs[name], name)) is not None:
            raise UserError(
                f"{where} holds a run with {at[0]}={at[2]!r}, not {at[1]!r}: choose another --workdir, or give the "
                "same config"
            )


def _check_frozen(trainer: Trainer, saved: dict) -> None:
    """Raise `UserError` if the set of trained parameters has changed: new ones would have no optimizer state."""
    spec = trainer.program.spec()
    before = trained(
        spec, by_pattern(saved["optimizer"]["lr_multipliers"], spec, "lr_multipliers"), trainer.program.trainable
    )
    theirs, ours = ({path for path, _ in flatten(tree)} for tree in (before, trainer.optimizer.spec))
    if other := sorted(theirs ^ ours):
        was, now = ("trained", "frozen") if other[0] in theirs else ("frozen", "trained")
        raise UserError(
            f"config.optimizer.lr_multipliers: {other[0]} was {was} so far and would be {now}, but its optimizer "
            "state cannot: leave what is frozen, or begin another run with config.train.init_from set to the folder of "
            "this one"
        )


def _check_released(trainer: Trainer, saved: dict) -> None:
    """Raise `UserError` if optimizer state is grouped otherwise than it was."""
    before = Release.of(tuples(saved["optimizer"].get("frozen_until", ())), trainer.optimizer.spec)
    theirs, ours = (
        {} if r is None else {path: np.array(at).tolist() for path, at in flatten(r.at)}
        for r in (before, trainer.optimizer.release)
    )
    if theirs != ours:
        raise UserError(
            "config.optimizer.frozen_until has changed, and with it which parameters share their optimizer state: "
            "leave it as it was, or begin another run with config.train.init_from set to the folder of this one"
        )


FREE = ("cache", "workers")  # knobs of config.data that do not change the batches


def _identity(meta: dict) -> dict[str, Any]:
    """What identifies a run: it cannot resume if any of this changes."""
    meta = json.loads(json.dumps(meta))
    config = meta["config"]
    data = {k: v for k, v in config["data"].items() if k not in FREE}
    data["tokenizer"] = data["tokenizer"] or (not config["train"]["init_from"] and "byte")
    return {
        "model": meta["model"],
        "transforms": meta["transforms"],
        "objective": config["objective"],
        "data": data,
        "seed": config["seed"],
        "optimizer.type": config["optimizer"]["type"],
        "train.init_from": config["train"]["init_from"],
        "train.surgery": config["train"]["surgery"],
        "stages": config["stages"],
        "train.batch_warmup": config["train"]["batch_warmup"],
        "digest of the tokens of data.source": meta["text"],
    }
