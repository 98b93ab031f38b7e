"""The loss of each of several groups of rows: parts of a mixture of objectives, or sources of text."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp

from lm.core.metrics import Mean, Metrics, Sum

Array = jax.Array


def losses_by(rows: Mean | None, group: Array, names: Sequence[str]) -> Metrics:
    """`loss/NAME` and `tokens/NAME` of each group, from nats and predictions of each row [B] and the number of its
    group, int32 [B]; nothing where the head does not tell rows apart."""
    if rows is None:
        return {}
    own = (group[:, None] == jnp.arange(len(names))).astype(jnp.float32)
    totals, weights = rows.total @ own, rows.weight @ own
    losses = {f"loss/{name}": Mean(totals[i], weights[i]) for i, name in enumerate(names)}
    return losses | {f"tokens/{name}": Sum(weights[i]) for i, name in enumerate(names)}
