"""Ctx: everything a layer may read besides its parameters and its input."""

import dataclasses
import zlib
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from lm.core.mesh import Sharding, lay_out
from lm.core.walk import Scan, Walk

Array = jax.Array


@dataclasses.dataclass(frozen=True)
class Execution:
    """How a model is executed; no choice here changes its outputs.

    remat: what the backward pass recomputes within a layer (`lm.core.remat.REMAT`);
    walk: how repeated layers are gone through: by `lax.scan`, unrolled, or in a pipeline (`lm.core.walk.Walk`);
    remat_names: what it does not, by name (`lm.core.remat.NAMES`), where remat is "names" or "offload";
    attention: a kernel by its name in `lm.kernels.attention.select.KERNELS`; None: for each layer the best one for
    it;
    grouped_matmul: likewise of experts, by its name in `lm.kernels.grouped_matmul.select.KERNELS`;
    cross_entropy: likewise of a vocabulary's loss, by its name in `lm.kernels.cross_entropy.select.KERNELS`;
    context: how tokens attend that lie on several devices, a name of `lm.parallel.context.WAYS`; "auto": for each layer
    the best way for it;
    zigzag: a ring may have them in zig-zag order, where the model does not mind (`lm.model.order`)."""

    remat: str = "none"
    walk: Walk = Scan()
    remat_names: tuple[str, ...] = ()
    attention: str | None = None
    grouped_matmul: str | None = None
    cross_entropy: str | None = None
    context: str = "auto"
    zigzag: bool = True


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
    zigzag: bool = dataclasses.field(
        default=False, metadata={"static": True}
    )  # rows are in that order: `lm.model.order`
    path: str = dataclasses.field(default="", metadata={"static": True})  # of the component being called

    def at(self, name: str) -> "Ctx":
        """The ctx of a part called `name`: its random draws and records differ from its neighbours'."""
        return dataclasses.replace(self, path=f"{self.path}/{name}")

    def replace(self, **changes: Any) -> "Ctx":
        return dataclasses.replace(self, **changes)


def constrain(x: Array, ctx: Ctx, *axes: str | None) -> Array:
    """Ask for the layout that ctx's rules give to these logical axes; the identity without a mesh. An axis that does
    not divide stays whole, as the one token of a decoding step where the rules cut the sequence."""
    if ctx.sharding is None:
        return x
    return lay_out(x, ctx.sharding.fitting(x.shape, axes))


def tap(aux: dict, ctx: Ctx, name: str, x: Array) -> Array:
    """Hand x out under `name` if the caller asked for it in `ctx.record`."""
    if name in ctx.record:
        aux[name] = x
    return x


def by_row(draw: Callable[[Array], Array], ctx: Ctx, site: str, rows: int) -> Array:
    """Random values [rows, ...]: what `draw` makes of a key of each row.

    Keys depend on (ctx.key, layer, site, row id), never on the position in a batch: microbatches, pipeline stages and
    other meshes draw the same. Row ids come from `ctx.rows["row"]` (default: 0, 1, 2 ...)."""
    assert ctx.key is not None
    key = jax.random.fold_in(jax.random.fold_in(ctx.key, ctx.layer), zlib.crc32(f"{ctx.path}/{site}".encode()))
    row = ctx.rows.get("row", jnp.arange(rows))
    return jax.vmap(lambda r: draw(jax.random.fold_in(key, r)))(row)


def dropout(x: Array, rate: float, ctx: Ctx, site: str) -> Array:
    """Zero entries of x [batch, ...] with probability `rate`, scale up the rest. The identity without a key."""
    if ctx.key is None or rate == 0.0:
        return x
    keep = by_row(lambda key: jax.random.bernoulli(key, 1 - rate, x.shape[1:]), ctx, site, len(x))
    return jnp.where(keep, x / (1 - rate), 0).astype(x.dtype)


def jitter(x: Array, size: float, ctx: Ctx, site: str) -> Array:
    """x [batch, ...] times noise, even from 1 - size to 1 + size. The identity without a key."""
    if ctx.key is None or size == 0.0:
        return x
    noise = by_row(lambda key: jax.random.uniform(key, x.shape[1:], x.dtype, 1 - size, 1 + size), ctx, site, len(x))
    return x * noise
