"""Pipeline parallelism: the repeats of a layer group spread over a mesh axis, microbatches passed from one stage to the
next."""

import dataclasses

import jax
import jax.numpy as jnp
from jax.sharding import PartitionSpec

from lm.core.ctx import Ctx
from lm.core.errors import UserError
from lm.core.mesh import Sharding
from lm.core.param import Tree
from lm.core.rules import STAGE
from lm.core.walk import Repeat, Repeats, Scan, Walk, step_of
from lm.parallel.schedule import Number, Order

Array = jax.Array


@dataclasses.dataclass(frozen=True)
class Pipelined(Walk):
    """A walk in stages along the mesh axis `axis` (GPipe, Huang et al. 2019, arXiv 1811.06965).

    Each stage has an equal run of a group's repeats. The batch is cut into `microbatches`; at tick t, stage s walks its
    layers with microbatch t - s and hands the carry on to stage s + 1:

        tick     0  1  2  3  4  5
        stage 0  a  b  c  d  .  .
        stage 1  .  a  b  c  d  .
        stage 2  .  .  a  b  c  d

    so that (stages - 1) / (microbatches + stages - 1) of the time is idle. The backward pass runs the same schedule in
    reverse. Within a stage the other mesh axes work as ever, by the sharding rules of ctx.

    With `chunks` above 1 each stage has as many shorter runs, and microbatches go round (A: the second time). Less time
    is idle, (stages - 1) / (chunks microbatches + stages - 1), and more is sent:

        tick     0  1  2  3  4  5  6  7  8  9 10 11 12 13
        stage 0  a  b  c  A  B  C  d  e  f  D  E  F  .  .
        stage 1  .  a  b  c  A  B  C  d  e  f  D  E  F  .
        stage 2  .  .  a  b  c  A  B  C  d  e  f  D  E  F

    Parameters lie on the stages in equal runs whatever the chunks, so that these have no say in a checkpoint; chunks
    other than 1 are moved to their stages in each step, and their gradients back.

    `ctx.rows` is cut like the carry, `ctx.shared` goes to every stage, and aux lies on the stages of its layers. What
    is not repeated (embedding, head, a first layer unlike the others) every stage computes alike. Where ctx has no mesh
    with that axis, this is `Scan`. Call it under `jax.jit`.

    Raises `UserError` when stages and chunks do not divide the repeats, or microbatches the batch; and for caches."""

    microbatches: int
    chunks: int = 1
    axis: str = STAGE

    def __call__(self, repeat: Repeat, repeats: Repeats, carry: Tree, ctx: Ctx) -> tuple[Tree, list | None, Tree]:
        order = self.order(ctx.sharding)
        if ctx.sharding is None or order.stages == 1 or repeats.number == 1:
            return Scan()(repeat, repeats, carry, ctx)
        order.check(repeats.number)
        batch = jax.tree.leaves(carry)[0].shape[0]
        check_rows(batch, self.microbatches)
        if repeats.caches is not None:
            raise UserError("a pipeline has no caches: generate, or remember from batch to batch, without one")
        stages, here = order.stages, repeats.number // (order.stages * self.chunks)
        onward = [(i, (i + 1) % stages) for i in range(stages if self.chunks > 1 else stages - 1)]

        def stage(own: Tree, common: Tree, inputs: Tree, rows: dict, shared: dict, key: Array | None) -> tuple:
            """What one stage does; `own` are the parameters of its chunks, the rest is the same for all stages."""
            at = jax.lax.axis_index(self.axis)

            def tick(arrived: Tree, t: Array) -> tuple[Tree, tuple[Tree, Tree]]:
                n = jnp.clip(t - at, 0, order.items - 1)  # while idle: any real rows, whose results nobody reads
                round_, mine = order.item(n)
                entering = (at == 0) & (round_ == 0)
                given = jax.tree.map(lambda new, old: jnp.where(entering, new[mine], old), inputs, arrived)
                inside = ctx.replace(rows=jax.tree.map(lambda x: x[mine], rows), shared=shared, key=key)
                chunk, indices = chunk_of(own, round_, at, order, here)
                step = step_of(repeat, common, inside, in_loop=True)
                done, (_, aux) = jax.lax.scan(step, given, (indices, chunk, None))
                return jax.tree.map(lambda x: jax.lax.ppermute(x, self.axis, onward), done), (done, aux)

            begin = jax.tree.map(lambda x: x[0], inputs)
            _, (done, aux) = jax.lax.scan(tick, begin, jnp.arange(order.ticks))
            ticks = at + order.number(jnp.arange(self.chunks)[:, None], jnp.arange(self.microbatches))
            carry = jax.tree.map(lambda x: join(x[ticks[-1]], 0)[None], done)
            return carry, jax.tree.map(lambda x: jax.vmap(lambda x: join(x, 1))(x[ticks]), aux)

        rows = {"row": jnp.arange(batch)} | ctx.rows  # a microbatch's rows must not count from 0 again
        inputs, rows = cut((carry, rows), self.microbatches)
        everywhere, by_chunk = PartitionSpec(), PartitionSpec(None, self.axis)
        carry, aux = jax.shard_map(
            stage,
            mesh=ctx.sharding.mesh,
            in_specs=(by_chunk, *[everywhere] * 5),
            out_specs=(PartitionSpec(self.axis), by_chunk),
            axis_names={self.axis},
            check_vma=False,  # model code need not know that it runs inside a stage
        )(in_chunks(repeats.own, self.chunks), repeats.common, inputs, rows, ctx.shared, ctx.key)
        return jax.tree.map(lambda x: x[-1], carry), None, whole(aux)

    def kept(self, order: Order) -> int:
        """Items of which a stage keeps, at most, what their backward passes need; idle ticks keep as much as others."""
        return order.ticks

    def order(self, sharding: Sharding | None) -> Order:
        """Of what the stages of that mesh do."""
        stages = 1 if sharding is None else sharding.mesh.shape.get(self.axis, 1)
        return Order(stages, self.microbatches, self.chunks)


def check_rows(rows: int, microbatches: int) -> None:
    """Raise `UserError` where microbatches do not divide the rows of a batch."""
    if rows % microbatches:
        raise UserError(f"{microbatches} microbatches of a pipeline do not divide {rows} rows: change one of them")


def in_chunks(own: Tree, chunks: int) -> Tree:
    """Leaves [repeats, ...] -> [chunks, repeats / chunks, ...], of whose second axis each stage has an equal run."""
    return jax.tree.map(lambda x: x.reshape(chunks, -1, *x.shape[1:]), own)


def whole(chunked: Tree) -> Tree:
    """The inverse."""
    return jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:]), chunked)


def chunk_of(own: Tree, round_: Number, at: Array, order: Order, here: int) -> tuple[Tree, Array]:
    """Of a stage's parameters [chunks, here, ...], those of the repeats that it walks in that round; their numbers."""
    chunk = jax.tree.map(lambda x: x[0 if order.chunks == 1 else round_], own)
    return chunk, (at + round_ * order.stages) * here + jnp.arange(here)


def cut(tree: Tree, parts: int) -> Tree:
    """Leaves [B, ...] -> [parts, B / parts, ...]; strided, so that rows stay on their devices."""
    return jax.tree.map(lambda x: jnp.moveaxis(x.reshape(-1, parts, *x.shape[1:]), 1, 0), tree)


def join(x: Array, before: int) -> Array:
    """The inverse for one array, with `before` axes between the microbatches' and the batch's."""
    x = jnp.moveaxis(x, 0, before + 1)
    return x.reshape(*x.shape[:before], -1, *x.shape[before + 2 :])
