"""How well a model predicts held-out batches: nats per token, bits per byte, accuracy."""

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from lm.core.ctx import Ctx, Execution
from lm.core.errors import UserError
from lm.core.mesh import Sharding
from lm.core.param import Tree
from lm.model.kv_sources import CacheShape
from lm.model.transformer import Model
from lm.objectives.causal import Loss

SUMS = ("nll", "hits", "tokens", "bytes")  # those of an objective's stats that are needed here


class Evaluator:
    """A function of (params, batches) that is compiled once and may be called as often as wanted.

    The losses of all batches are summed, then divided once: batches with fewer tokens count for less, and
    the result does not depend on how the data is cut into batches. There is no dropout. Arrays are used
    where they lie: with a `sharding`, give global arrays, as in training."""

    def __init__(
        self,
        model: Model,
        objective: Any,
        dtype: jax.typing.DTypeLike = jnp.float32,
        sharding: Sharding | None = None,
        execution: Execution = Execution(),
        memory: int = 0,
    ) -> None:
        """`memory`: how many rows the batches have, where the model remembers them in the next; 0: it does not."""
        ctx = Ctx(sharding=sharding, execution=execution)
        # By numpy: every process makes the whole of them, on no device in particular.
        self._slots = [jax.tree.map(np.asarray, model.cache(CacheShape(memory, 0, dtype=dtype)))] if memory else []

        def sums(params: Tree, batch: dict, *cache: Tree) -> tuple[dict[str, jax.Array], list[Tree]]:
            loss: Loss = objective(model, params, batch, ctx, dtype, *cache)
            return {name: loss.stats[name] for name in SUMS if name in loss.stats}, [loss.cache for _ in cache]

        self._sums = jax.jit(sums)

    def __call__(self, params: Tree, batches: Iterable[Mapping[str, Any]]) -> dict[str, float]:
        """`loss` (nats per predicted token), `accuracy`, `tokens`, and where batches tell their `bytes` also
        `bytes` and `bits_per_byte`. Raises `UserError` when no token is predicted at all."""
        totals: dict[str, float] = {}
        pending: dict[str, jax.Array] = {}
        cache = self._slots
        for batch in batches:
            done = pending
            pending, cache = self._sums(params, dict(batch), *cache)
            _add(totals, done)  # one batch late, so that the device never waits for the host
        _add(totals, pending)
        tokens = totals.get("tokens", 0)
        if not tokens:
            raise UserError("no token to predict in these batches: evaluate on more text, or on longer rows")
        result = {"loss": totals["nll"] / tokens, "accuracy": totals["hits"] / tokens, "tokens": tokens}
        if totals.get("bytes"):
            result |= {
                "bits_per_byte": totals["nll"] / math.log(2) / totals["bytes"],
                "bytes": totals["bytes"],
            }
        return result


def pooled(results: Sequence[dict[str, float]]) -> dict[str, float]:
    """The figures of several evaluations as of one on all their batches."""
    tokens = sum(r["tokens"] for r in results)
    pool = {name: sum(r[name] * r["tokens"] for r in results) / tokens for name in ("loss", "accuracy")}
    pool["tokens"] = tokens
    if all("bytes" in r for r in results):
        pool["bytes"] = sum(r["bytes"] for r in results)
        pool["bits_per_byte"] = sum(r["bits_per_byte"] * r["bytes"] for r in results) / pool["bytes"]
    return pool


def _add(totals: dict[str, float], sums: dict[str, jax.Array]) -> None:
    for name, value in sums.items():  # on the host, in float64: counts stay exact
        totals[name] = totals.get(name, 0.0) + float(value)
