"""From a config to the parts of a run: mesh, data, trainer, first state."""

import json
import math
from collections.abc import Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections.config_dict import ConfigDict

from lm.core.ctx import Run
from lm.core.errors import UserError
from lm.core.mesh import Sharding, make_mesh
from lm.data.batches import Batches, EvalBatches
from lm.data.open import Data, open_data
from lm.data.tokenizers import Tokenizer
from lm.model.transformer import Model
from lm.train.checkpoint import Checkpoints
from lm.train.optimizer import Optimizer
from lm.train.step import State, Trainer


def sharding_of(config: ConfigDict, devices: Sequence[jax.Device] | None = None) -> Sharding | None:
    """The mesh of `config.mesh` over these devices (default: all) with the default rules; None on a single device."""
    mesh = make_mesh(config.mesh.to_dict(), devices)
    if mesh.size == 1:
        return None
    split = math.prod(mesh.shape[a] for a in ("data", "fsdp", "expert"))
    rows = config.data.batch_size // config.train.accumulate
    if rows % split:
        raise UserError(
            f"config.data.batch_size={config.data.batch_size} in {config.train.accumulate} part(s) does not divide "
            f"over "
            f"data x fsdp x expert = {split} devices: make it a multiple of {split * config.train.accumulate}"
        )
    return Sharding(mesh)


def open_data_of(config: ConfigDict) -> Data:
    c = config.data
    return open_data(
        c.source,
        c.tokenizer,
        validation=c.validation or None,
        pattern=c.pattern,
        field=c.field,
        holdout=c.holdout,
        cache=c.cache,
    )


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


def batches_of(config: ConfigDict, data: Data, objective: Any) -> tuple[Batches, EvalBatches]:
    """Training batches by address and validation batches in order; each row also tells how many bytes it predicts."""
    if hasattr(objective, "for_tokenizer"):
        objective = objective.for_tokenizer(data.tokenizer)
    sizes = np.append(data.tokenizer.token_bytes(), 0)

    def example(row: dict, rng: np.random.Generator) -> dict:
        made = objective.example(row, rng)
        predicted = made["targets"][made["weights"] > 0]
        return made | {"bytes": np.int32(sizes[predicted].sum())}

    c = config.data
    train = Batches(data.train, c.length, c.batch_size, config.seed, example)
    return train, EvalBatches(data.validation, c.length, c.batch_size, example)


def lengths_of(batches: Batches) -> tuple[int, int]:
    """Tokens per row of the model's input, and of its encoder's (0 without one)."""
    batch = batches.batch(0)
    encoder = batch.get("encoder/tokens")
    return batch["tokens"].shape[1], 0 if encoder is None else encoder.shape[1]


def abstract_batch(config: ConfigDict, objective: Any, sharding: Sharding | None) -> dict[str, jax.ShapeDtypeStruct]:
    """Shapes, types and layout of a training batch, without data."""
    n = config.data.length + 1
    row = {"tokens": np.zeros(n, np.int32), "segments": np.ones(n, np.int32)}
    example = objective.example(row, np.random.default_rng(0)) | {"bytes": np.int32(0)}
    shapes = {k: ((config.data.batch_size, *np.shape(v)), np.asarray(v).dtype) for k, v in example.items()}
    return {
        k: jax.ShapeDtypeStruct(
            shape, dtype, sharding=None if sharding is None else sharding.named(("batch",) + (None,) * (len(shape) - 1))
        )
        for k, (shape, dtype) in shapes.items()
    }


def trainer_of(
    config: ConfigDict, model: Model, objective: Any, sharding: Sharding | None, run: Run | None = None
) -> Trainer:
    """The trainer of a config; `run` overrides how the model is executed."""
    return Trainer(
        model=model,
        objective=objective,
        optimizer=Optimizer.of(config.optimizer, model.spec(), config.train.steps),
        seed=config.seed,
        accumulate=config.train.accumulate,
        dtype=jnp.dtype(config.train.dtype),
        run=run or Run(remat=config.train.remat, unroll=config.train.unroll),
        sharding=sharding,
    )


def start(trainer: Trainer, hyper: dict, checkpoints: Checkpoints, meta: dict) -> State:
    """Step 0, or the latest checkpoint. Raises `UserError` if that is of another model, objective, seed or data."""
    if checkpoints.latest is None:
        return trainer.init(hyper)
    ours, theirs = _identity(meta), _identity(checkpoints.meta(checkpoints.latest))
    for name in ours:
        if (where := difference(ours[name], theirs[name], name)) is not None:
            raise UserError(
                f"{checkpoints.path} holds a run with {where[0]}={where[2]!r}, not {where[1]!r}: choose another "
                "--workdir, or give the same config"
            )
    return checkpoints.state(checkpoints.latest, trainer.abstract(hyper), hyper)


def _identity(meta: dict) -> dict[str, Any]:
    """What makes a run another run when it changes."""
    meta = json.loads(json.dumps(meta))
    config = meta["config"]
    data = {k: v for k, v in config["data"].items() if k != "cache"}  # a cache may move
    objective, seed, optimizer = config["objective"], config["seed"], config["optimizer"]["name"]
    run = {"model": meta["model"], "objective": objective, "data": data, "seed": seed, "optimizer.name": optimizer}
    return run | {"digest of the tokens of data.source": meta["text"]}


def difference(a: Any, b: Any, where: str) -> tuple[str, Any, Any] | None:
    """The first place where two JSON values differ, with both values."""
    if isinstance(a, dict) and isinstance(b, dict) and a.keys() == b.keys():
        return next((d for k in a if (d := difference(a[k], b[k], f"{where}.{k}"))), None)
    if isinstance(a, list) and isinstance(b, list) and len(a) == len(b):
        return next((d for i in range(len(a)) if (d := difference(a[i], b[i], f"{where}[{i}]"))), None)
    return None if a == b else (where, a, b)


def put(batch: dict[str, np.ndarray], sharding: Sharding | None) -> dict[str, jax.Array]:
    """A host batch on the devices, its rows laid out by the rules."""
    if sharding is None:
        return jax.device_put(batch)
    return jax.device_put(batch, {k: sharding.named(("batch",) + (None,) * (v.ndim - 1)) for k, v in batch.items()})


def prefetched(batches: Iterator[dict], sharding: Sharding | None) -> Iterator[dict[str, jax.Array]]:
    """Batches on the devices, one ahead of the step that uses it."""
    ahead = put(next(batches), sharding)
    for batch in batches:
        now, ahead = ahead, put(batch, sharding)
        yield now
