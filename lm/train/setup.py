"""From a config to the parts of a run: mesh, trainer, first state. Its data: `lm.train.data`."""

import json
from typing import Any

import jax.numpy as jnp
from ml_collections.config_dict import ConfigDict

from lm.core.component import canonical, components
from lm.core.ctx import Execution
from lm.core.errors import UserError
from lm.core.mesh import Sharding
from lm.core.param import flatten
from lm.model.kv_sources import CrossKV, SegmentMemory, SelfKV
from lm.model.transformer import Model
from lm.objectives.objective import Objective
from lm.runs.checkpoint import Checkpoints
from lm.text.tokenizers import Tokenizer
from lm.train.health.monitor import Recovery
from lm.train.initial import initial_params
from lm.train.optim.optimizer import Optimizer, by_pattern, trained
from lm.train.parallel import execution_of
from lm.train.record import completed
from lm.train.state import State, saved_state
from lm.train.step import Trainer


def check_fit(config: ConfigDict, model: Model, tokenizer: Tokenizer) -> None:
    """Raise `UserError` where model and data do not go together."""
    if tokenizer.vocab_size > model.vocab:
        raise UserError(
            f"tokenizer {config.data.tokenizer} has {tokenizer.vocab_size} tokens, more than the model's vocabulary of "
            f"{model.vocab}: set config.model.vocab={tokenizer.vocab_size} or more"
        )
    if model.longest is not None and config.data.length > model.longest:
        raise UserError(
            f"config.data.length={config.data.length} exceeds the model's {model.longest} positions: "
            "lower it, or raise config.model.context"
        )
    if model.longest is not None and config.data.packing == "stream":
        raise UserError(
            "config.data.packing='stream' counts positions on through a document, but this model has only "
            f"{model.longest}: take a model with relative positions, or packing 'concat'"
        )


def remembers(model: Model) -> bool:
    """Whether a model's cache hold a memory, of one size for ever, and no cache of all that was read."""
    sources = {type(part) for part in components(model) if isinstance(part, (SelfKV, CrossKV, SegmentMemory))}
    if SegmentMemory in sources and len(sources) > 1:
        raise UserError("this model remembers in some of its layers only: give all of them a memory, or none")
    return SegmentMemory in sources


def memory_rows(config: ConfigDict, model: Model, objective: Objective) -> int:
    """How many rows a model remembers from one batch in the next: all where rows go on, and it has a memory."""
    if config.data.packing != "stream" or not remembers(model):
        return 0
    if not objective.needs().carries:
        raise UserError(
            f"config.objective {type(objective).__name__} begins every row anew, but config.data.packing='stream' lets "
            "this model remember: take NextToken, or packing 'concat'"
        )
    return config.data.batch_size


def trainer_of(
    config: ConfigDict,
    model: Model,
    objective: Objective,
    sharding: Sharding | None,
    execution: Execution | None = None,
) -> Trainer:
    """The trainer of a config; `execution` overrides how the model is executed."""
    return Trainer(
        model=model,
        objective=objective,
        optimizer=Optimizer.of(config.optimizer, model.spec(), config.train.steps),
        seed=config.seed,
        accumulate=config.train.accumulate,
        ragged=bool(config.train.batch_warmup),
        ema=config.optimizer.ema,
        memory=memory_rows(config, model, objective),
        recovery=Recovery(**config.train.recovery.to_dict()),
        noise_scale=config.train.noise_scale,
        dtype=jnp.dtype(config.train.dtype),
        execution=execution or execution_of(config, model),
        sharding=sharding,
    )


def first_state(trainer: Trainer, hyper: dict, init_from: str) -> State:
    """Step 0, with parameters from the folder `init_from` if that is named."""
    params = None
    if init_from:
        params = initial_params(init_from, trainer.model, trainer.abstract(hyper).params)
    return trainer.init(hyper, params)


def start(trainer: Trainer, hyper: dict, checkpoints: Checkpoints, meta: dict) -> tuple[State, dict]:
    """Step 0, or the latest checkpoint; and what that says of itself (`meta` for step 0).

    Raises `UserError` if it is of another model, objective, seed or data."""
    if checkpoints.latest is None:
        return first_state(trainer, hyper, meta["config"]["train"]["init_from"]), meta
    saved = checkpoints.meta(checkpoints.latest)
    ours, theirs = (
        _identity(meta),
        _identity(saved | {"config": completed(saved["config"]), "model": canonical(saved["model"])}),
    )
    for name in ours:
        if (where := difference(ours[name], theirs[name], name)) is not None:
            raise UserError(
                f"{checkpoints.path} holds a run with {where[0]}={where[2]!r}, not {where[1]!r}: choose another "
                "--workdir, or give the same config"
            )
    _check_rates(trainer, completed(saved["config"]))
    return saved_state(checkpoints, checkpoints.latest, trainer.abstract(hyper), hyper), saved


def _check_rates(trainer: Trainer, saved: dict) -> None:
    """Raise `UserError` if other parameters train than did so far: there is no optimizer state for them."""
    spec = trainer.model.spec()
    before = trained(spec, by_pattern(saved["optimizer"]["rates"], spec, "rates"))
    theirs, ours = ({path for path, _ in flatten(tree)} for tree in (before, trainer.optimizer.spec))
    if other := sorted(theirs ^ ours):
        was, now = ("trained", "frozen") if other[0] in theirs else ("frozen", "trained")
        raise UserError(
            f"config.optimizer.rates: {other[0]} was {was} so far and would be {now}, but its optimizer state cannot: "
            "leave what is frozen, or begin another run with config.train.init_from set to this one's folder"
        )


def _identity(meta: dict) -> dict[str, Any]:
    """What makes a run another run when it changes."""
    meta = json.loads(json.dumps(meta))
    config = meta["config"]
    data = {k: v for k, v in config["data"].items() if k != "cache"}  # which may move
    data["tokenizer"] = data["tokenizer"] or (not config["train"]["init_from"] and "byte")
    return {
        "model": meta["model"],
        "objective": config["objective"],
        "data": data,
        "seed": config["seed"],
        "optimizer.name": config["optimizer"]["name"],
        "train.init_from": config["train"]["init_from"],
        "train.batch_warmup": config["train"]["batch_warmup"],
        "digest of the tokens of data.source": meta["text"],
    }


def difference(a: Any, b: Any, where: str) -> tuple[str, Any, Any] | None:
    """The first place where two JSON values differ, with both values."""
    if isinstance(a, dict) and isinstance(b, dict) and a.keys() == b.keys():
        return next((d for k in a if (d := difference(a[k], b[k], f"{where}.{k}"))), None)
    if isinstance(a, list) and isinstance(b, list) and len(a) == len(b):
        return next((d for i in range(len(a)) if (d := difference(a[i], b[i], f"{where}[{i}]"))), None)
    return None if a == b else (where, a, b)
