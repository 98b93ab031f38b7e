"""How well a model predicts held-out batches, by the metrics of its objective."""

from collections.abc import Iterable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from lm.core.ctx import Ctx, Execution
from lm.core.errors import UserError
from lm.core.mesh import Sharding
from lm.core.metrics import Metrics, added
from lm.core.param import Tree
from lm.core.rows import Batch
from lm.model.cache import CacheShape
from lm.model.transformer import Model
from lm.objectives.objective import Objective, check_needs


class Evaluator:
    """A function of (params, batches) that is compiled once and may be called as often as wanted.

    The losses of all batches are summed, then divided once: batches with fewer tokens count for less, and
    the result does not depend on how the data is cut into batches. There is no dropout. Arrays are used
    where they lie: with a `sharding`, give global arrays, as in training."""

    def __init__(
        self,
        model: Model,
        objective: Objective,
        dtype: jax.typing.DTypeLike = jnp.float32,
        sharding: Sharding | None = None,
        execution: Execution = Execution(),
        memory: int = 0,
    ) -> None:
        """`memory`: how many rows the batches have, where the model remembers them in the next; 0: it does not."""
        ctx = Ctx(sharding=sharding, execution=execution)
        check_needs(objective, model)
        # By numpy: every process makes the whole of it, on no device in particular.
        shape = CacheShape(memory, 0, dtype=dtype)
        self._cache = jax.tree.map(np.asarray, model.cache(shape)) if memory else None

        def metrics(params: Tree, batch: Batch, cache: Tree) -> tuple[Metrics, Tree]:
            loss = objective(model, params, batch, ctx, dtype, cache)
            return loss.metrics, None if cache is None else loss.cache

        self._metrics = jax.jit(metrics)

    def __call__(self, params: Tree, batches: Iterable[Mapping[str, Any]]) -> Metrics:
        """The objective's metrics, summed over the batches: `loss`, `tokens` and whatever else it reports, as
        `lm.core.metrics.values` divides them. Raises `UserError` when no token is predicted at all."""
        totals: Metrics = {}
        pending: Metrics = {}
        cache = self._cache
        for batch in batches:
            done = pending
            pending, cache = self._metrics(params, dict(batch), cache)
            totals = added([totals, _host(done)])  # one batch late, so that the device never waits for the host
        totals = added([totals, _host(pending)])
        if not totals or not totals["tokens"].total:
            raise UserError("no token to predict in these batches: evaluate on more text, or on longer rows")
        return totals


def _host(metrics: Metrics) -> Metrics:
    return jax.tree.map(_exact, metrics)


def _exact(x: Any) -> Any:
    return np.asarray(x, np.float64) if np.ndim(x) else float(x)  # in float64: counts stay exact
