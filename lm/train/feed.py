"""From data to the devices: a config's batches, and the feed that keeps the step supplied with them.

Each process makes only the rows that its devices hold, and the batch is one global array over all of them."""

import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import jax
import numpy as np
from ml_collections.config_dict import ConfigDict

from lm.core.errors import UserError
from lm.core.mesh import Sharding
from lm.data.batches import Batch, Batches, EvalBatches, Example
from lm.data.open import Data, open_data
from lm.hub.text import read_tokenizer
from lm.text.format import TextFormat

DeviceBatch = dict[str, jax.Array]
LOOK_STEPS, LOOK_ROWS, LOOK_MOST = 8, 256, 10_000  # how far it is looked for a row that predicts something


def open_data_of(config: ConfigDict, text: TextFormat | None = None) -> Data:
    """The data of a config. `text`: the format of the model that the run goes on from, which decides what the config
    leaves open, its tokenizer and the begin-of-text."""
    c = config.data
    tokenizer = c.tokenizer or (text.tokenizer if text is not None else "byte")
    if isinstance(tokenizer, str) and (folder := Path(tokenizer).expanduser()).is_dir():
        tokenizer = read_tokenizer(folder)
    return open_data(
        c.source,
        tokenizer,
        mixture=c.mixture,
        validation=c.validation or None,
        pattern=c.pattern,
        field=c.field,
        holdout=c.holdout,
        cache=c.cache,
        reserved=c.reserved,
        bos=c.bos == "on" or (c.bos == "auto" and text is not None and bool(text.before)),
    )


def batches_of(config: ConfigDict, data: Data, objective: Any) -> tuple[Batches, EvalBatches]:
    """Training batches by address and validation batches in order; each row also tells how many bytes it predicts."""
    c = config.data
    train = Batches(
        data.training,
        c.length,
        c.batch_size,
        config.seed,
        example_of(data, objective),
        packing=c.packing,
        warmup=tuple(map(tuple, config.train.batch_warmup)),
        parts=config.train.accumulate,
    )
    return train, held_out_of(config, data, objective)


def held_out_of(config: ConfigDict, data: Data, objective: Any) -> EvalBatches:
    """Validation batches alone."""
    c = config.data
    return EvalBatches(data.validation, c.length, c.batch_size, example_of(data, objective), packing=c.packing)


def example_of(data: Data, objective: Any) -> Example:
    """An objective's example of a row, with the number of `bytes` of text that it predicts: the sum of those that the
    example tells for its targets, or, of an objective that tells none, of those the targets stand for by themselves."""
    if hasattr(objective, "for_tokenizer"):
        objective = objective.for_tokenizer(data.tokenizer)
    sizes = np.append(data.tokenizer.token_bytes(), 0)

    def example(row: dict, rng: np.random.Generator) -> dict:
        made = objective.example(row, rng)
        covered = made["bytes"] if "bytes" in made else sizes[made["targets"]]
        return made | {"bytes": np.int32(covered[made["weights"] > 0].sum())}

    return example


def check_predicts(batches: Batches, objective: Any, step: int) -> None:
    """Raise `UserError` if the batches from step `step` (counted from 0) on predict no token at all, as far as a look
    ahead tells: nothing would be learned."""
    steps = range(step, step + max(LOOK_STEPS, -(-LOOK_ROWS // batches.batch_size)))
    looked = 0
    for k, row in ((k, row) for k in steps for row in range(batches.batch_size)):
        if np.any(batches.batch(k, [row])["weights"] > 0):
            return
        looked += 1
        if looked == LOOK_MOST:
            break
    raise UserError(
        f"objective {type(objective).__name__} predicts no token in the next {looked:,} rows (from step {step + 1} "
        "on): its example() gives no weight above 0; change config.objective, or lengthen config.data.length"
    )


def shapes_of(batches: Batches) -> dict[str, jax.ShapeDtypeStruct]:
    """Of a training batch, all of its rows."""
    row = batches.batch(0, [0])
    return {k: jax.ShapeDtypeStruct((batches.batch_size, *x.shape[1:]), x.dtype) for k, x in row.items()}


def lengths_of(batches: Batches) -> tuple[int, int]:
    """Tokens per row of the model's input, and of its encoder's (0 without one)."""
    batch = batches.batch(0, [0])
    encoder = batch.get("encoder/tokens")
    return batch["tokens"].shape[1], 0 if encoder is None else encoder.shape[1]


def abstract_batch(config: ConfigDict, objective: Any, sharding: Sharding | None) -> dict[str, jax.ShapeDtypeStruct]:
    """Shapes, types and layout of a training batch, without data."""
    n = config.data.length + 1
    row = {"tokens": np.zeros(n, np.int32), "segments": np.ones(n, np.int32), "bytes": np.zeros(n, np.int32)}
    example = objective.example(row, np.random.default_rng(0)) | {"bytes": np.int32(0)}
    example |= {"fresh": np.int32(0)} if config.data.packing == "stream" else {}
    shapes = {k: ((config.data.batch_size, *np.shape(v)), np.asarray(v).dtype) for k, v in example.items()}
    return {
        k: jax.ShapeDtypeStruct(shape, dtype, sharding=None if sharding is None else _by_rows(sharding, len(shape)))
        for k, (shape, dtype) in shapes.items()
    }


def _by_rows(sharding: Sharding, ndim: int) -> jax.sharding.NamedSharding:
    return sharding.named(("batch",) + (None,) * (ndim - 1))


def own_rows(batch_size: int, sharding: Sharding | None) -> np.ndarray:
    """Those rows of a batch that devices of this process hold, ascending."""
    if sharding is None:
        return np.arange(batch_size)
    places = _by_rows(sharding, 1).addressable_devices_indices_map((batch_size,))
    return np.unique(np.concatenate([np.arange(batch_size)[index] for index in places.values()]))


def put(batch: Batch, rows: np.ndarray, batch_size: int, sharding: Sharding | None) -> DeviceBatch:
    """This process's rows of a batch -> the global batch on the devices, laid out by the rules."""
    if sharding is None:
        return jax.device_put(batch)

    def whole(own: np.ndarray) -> jax.Array:
        def piece(index: Any) -> np.ndarray:
            first, last, _ = index[0].indices(batch_size)
            return own[np.searchsorted(rows, first) : np.searchsorted(rows, last)]

        return jax.make_array_from_callback((batch_size, *own.shape[1:]), _by_rows(sharding, own.ndim), piece)

    return {name: whole(own) for name, own in batch.items()}


class DevicePrefetcher:
    """Batches start, start + 1, ... on the devices, made by threads ahead of the step that uses them.

    `waited`: seconds in which a batch was asked for and not yet made."""

    def __init__(self, batches: Batches, sharding: Sharding | None, start: int = 0) -> None:
        rows = own_rows(batches.batch_size, sharding)
        self._host: Any = batches.iterate(start, rows=rows.tolist())
        self._put: Callable[[Batch], DeviceBatch] = lambda batch: put(batch, rows, batches.batch_size, sharding)
        self.waited = 0.0
        self._ahead = self._put(next(self._host))

    @property
    def ahead(self) -> DeviceBatch:
        """The batch that comes next."""
        return self._ahead

    def close(self) -> None:
        """Stop the threads."""
        self._host.close()

    def __iter__(self) -> "DevicePrefetcher":
        return self

    def __next__(self) -> DeviceBatch:
        now = self._ahead
        asked = time.perf_counter()
        batch = next(self._host)
        self.waited += time.perf_counter() - asked
        self._ahead = self._put(batch)  # one ahead: its transfer is done when its step begins
        return now


def evaluation_batches(held_out: EvalBatches, which: Iterable[int], sharding: Sharding | None) -> Iterator[DeviceBatch]:
    """These validation batches on the devices."""
    rows = own_rows(held_out.batch_size, sharding)
    return (put(held_out.batch(int(k), rows.tolist()), rows, held_out.batch_size, sharding) for k in which)
