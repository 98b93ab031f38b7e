"""Moving batches from host to devices, a step before they are used.

Each process builds only the rows that its devices hold; a batch is one global array over all devices."""

import time
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import jax
import numpy as np

from lm.core.mesh import Sharding
from lm.data.batches import Batch, Batches
from lm.data.eval_batches import EvalBatches
from lm.data.stages import StagedBatches

DeviceBatch = dict[str, jax.Array]


def by_rows(sharding: Sharding, ndim: int) -> jax.sharding.NamedSharding:
    """The sharding of a batch array with `ndim` axes."""
    return sharding.named(("batch",) + (None,) * (ndim - 1))


def own_rows(batch_size: int, sharding: Sharding | None) -> np.ndarray:
    """The rows of a batch that this process's devices hold, in ascending order."""
    if sharding is None:
        return np.arange(batch_size)
    held = by_rows(sharding, 1).addressable_devices_indices_map((batch_size,))
    return np.unique(np.concatenate([np.arange(batch_size)[index] for index in held.values()]))


def put(batch: Batch, rows: np.ndarray, batch_size: int, sharding: Sharding | None) -> DeviceBatch:
    """This process's rows of a batch -> the global batch on the devices, laid out by the rules."""
    if sharding is None:
        return jax.device_put(batch)

    def whole(own: np.ndarray) -> jax.Array:
        def piece(index: Any) -> np.ndarray:
            first, last, _ = index[0].indices(batch_size)
            return own[np.searchsorted(rows, first) : np.searchsorted(rows, last)]

        return jax.make_array_from_callback((batch_size, *own.shape[1:]), by_rows(sharding, own.ndim), piece)

    return {name: whole(own) for name, own in batch.items()}


class DevicePrefetcher:
    """Batches start, start + 1, ... on the devices, built by threads ahead of the step that uses them.

    `workers`: processes that build them in place of a thread; the batches are the same.
    `busy`: whether the devices have steps left to compute.
    `waited`: seconds in which they had none and the next batch was not ready. While the host runs ahead of the devices,
    nothing is lost by its waiting; a wait in whose midst they finish counts whole."""

    def __init__(
        self,
        batches: Batches | StagedBatches,
        sharding: Sharding | None,
        start: int = 0,
        workers: int = 0,
        busy: Callable[[], bool] = lambda: False,
    ) -> None:
        rows = own_rows(batches.batch_size, sharding)
        self._host: Any = batches.iterate(start, rows=rows.tolist(), workers=workers)
        self._put: Callable[[Batch], DeviceBatch] = lambda batch: put(batch, rows, batches.batch_size, sharding)
        self._busy = busy
        self.waited = 0.0
        self._ahead = self._put(next(self._host))

    @property
    def ahead(self) -> DeviceBatch:
        """The batch that comes next."""
        return self._ahead

    def close(self) -> None:
        """Stop the threads and processes."""
        self._host.close()

    def __iter__(self) -> "DevicePrefetcher":
        return self

    def __next__(self) -> DeviceBatch:
        now = self._ahead
        asked = time.perf_counter()
        batch = next(self._host)
        if not self._busy():
            self.waited += time.perf_counter() - asked
        self._ahead = self._put(batch)  # one ahead: its transfer is done when its step begins
        return now


def evaluation_batches(held_out: EvalBatches, which: Iterable[int], sharding: Sharding | None) -> Iterator[DeviceBatch]:
    """These validation batches on the devices."""
    rows = own_rows(held_out.batch_size, sharding)
    return (put(held_out.batch(int(k), rows.tolist()), rows, held_out.batch_size, sharding) for k in which)
