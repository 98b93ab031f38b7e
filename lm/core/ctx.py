"""Ctx: everything a layer may read besides its parameters and its input."""

import dataclasses
import zlib
from typing import Any

import jax
import jax.numpy as jnp

from lm.core.mesh import Sharding
from lm.core.walk import Scan, Walk

Array = jax.Array


@dataclasses.dataclass(frozen=True)
class Execution:
    """How a model is executed; no choice here changes its outputs.

    remat: what the backward pass recomputes within a layer: "none", "dots" (keep matmul results) or "full";
    walk: how repeated layers are gone through: by `lax.scan`, unrolled, or in a pipeline (`lm.core.walk.Walk`);
    attention: a kernel by its name in `lm.kernels.attention.select.KERNELS`; None: for each layer the best one for
    it."""

    remat: str = "none"
    walk: Walk = Scan()
    attention: str | None = None


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Ctx:
    """What any layer may read. `rows` and `shared` are split so that microbatching and pipelining can slice rows."""

    rows: dict[str, Array] = dataclasses.field(default_factory=dict)  # leaves with a leading batch axis
    shared: dict[str, Any] = dataclasses.field(default_factory=dict)  # leaves without: values computed once per stack
    key: Array | None = None  # for dropout; None: no dropout
    layer: Array | int = 0  # index of the layer within its stack (traced inside a scan)
    sharding: Sharding | None = dataclasses.field(default=None, metadata={"static": True})
    record: frozenset[str] = dataclasses.field(default=frozenset(), metadata={"static": True})
    execution: Execution = dataclasses.field(default=Execution(), metadata={"static": True})
    # Share of its gradient that the token table gets from the tokens that go in (GLM-130B's embedding-gradient shrink,
    # Zeng et al. 2022, arXiv 2210.02414).
    embed_gradient: float = dataclasses.field(default=1.0, metadata={"static": True})
    path: str = dataclasses.field(default="", metadata={"static": True})  # of the component being called

    def at(self, name: str) -> "Ctx":
        """The ctx of a part called `name`: its random draws and records differ from its neighbours'."""
        return dataclasses.replace(self, path=f"{self.path}/{name}")

    def replace(self, **changes: Any) -> "Ctx":
        return dataclasses.replace(self, **changes)


def constrain(x: Array, ctx: Ctx, *axes: str | None) -> Array:
    """Ask for the layout that ctx's rules give to these logical axes; the identity without a mesh."""
    if ctx.sharding is None:
        return x
    return jax.lax.with_sharding_constraint(x, ctx.sharding.named(axes))


def tap(aux: dict, ctx: Ctx, name: str, x: Array) -> Array:
    """Hand x out under `name` if the caller asked for it in `ctx.record`."""
    if name in ctx.record:
        aux[name] = x
    return x


def dropout(x: Array, rate: float, ctx: Ctx, site: str) -> Array:
    """Zero entries of x [batch, ...] with probability `rate`, scale up the rest.

    Bits are keyed by (ctx.key, layer, site, row id), never by position in a batch: microbatches, pipeline stages and
    other meshes draw the same ones. Row ids come from `ctx.rows["row"]` (default: 0, 1, 2 ...)."""
    if ctx.key is None or rate == 0.0:
        return x
    key = jax.random.fold_in(jax.random.fold_in(ctx.key, ctx.layer), zlib.crc32(f"{ctx.path}/{site}".encode()))
    row = ctx.rows.get("row", jnp.arange(x.shape[0]))
    keep = jax.vmap(lambda r: jax.random.bernoulli(jax.random.fold_in(key, r), 1 - rate, x.shape[1:]))(row)
    return jnp.where(keep, x / (1 - rate), 0).astype(x.dtype)
