"""Pipeline parallelism: a segment's layers spread over a mesh axis, microbatches passed from stage to stage."""

import dataclasses

import jax
import jax.numpy as jnp
from jax.sharding import Mesh, PartitionSpec

from lm.core.ctx import Ctx
from lm.core.errors import UserError, nearest
from lm.core.param import Tree
from lm.model.residual import Carry
from lm.model.stack import LayerGroup

Array = jax.Array


def pipelined(
    segment: LayerGroup,
    params: Tree,
    carry: Carry,
    ctx: Ctx,
    mesh: Mesh,
    axis: str,
    microbatches: int,
    first: int = 0,
) -> tuple[Carry, Tree]:
    """`segment(params, carry, ctx, None, first)` over the stages along mesh axis `axis`: the same values, gradients,
    dropout and statistics (GPipe, Huang et al. 2019, arXiv 1811.06965).

    Each stage holds an equal run of the segment's repeats (a tied segment: all of its parameters). The batch is cut
    into `microbatches`; at tick t, stage s walks its layers with microbatch t - s and hands the carry to stage s + 1:

        tick     0  1  2  3  4  5
        stage 0  a  b  c  d  .  .
        stage 1  .  a  b  c  d  .
        stage 2  .  .  a  b  c  d

    so that (stages - 1) / (microbatches + stages - 1) of the time is idle. The backward pass runs the same schedule in
    reverse. Other mesh axes keep working inside a stage by the sharding rules of `ctx`.

    carry: any tree of arrays [B, ...]; `ctx.rows` is cut like it, `ctx.shared` given to every stage. Returns the carry
    and `aux`, whose leaves [repeats, B, ...] lie on the stages of their layers. Call it under `jax.jit`.

    Raises `UserError` for an unknown axis, or when `axis` does not divide the repeats or `microbatches` the batch."""
    if axis not in mesh.shape:
        raise UserError(f"pipeline axis {axis!r} is no axis of the mesh{nearest(axis, mesh.shape)}")
    stages, batch = mesh.shape[axis], jax.tree.leaves(carry)[0].shape[0]
    if segment.repeats % stages:
        raise UserError(
            f"{segment.repeats} repeats do not spread evenly over {stages} pipeline stages: "
            f"change the layers or the size of mesh axis {axis!r}"
        )
    if microbatches < 1 or batch % microbatches:
        raise UserError(f"microbatches={microbatches} does not divide the batch of {batch} rows: change one of them")
    local = dataclasses.replace(segment, repeats=segment.repeats // stages)
    rows = {"row": jnp.arange(batch)} | ctx.rows  # a microbatch's rows must not count from 0 again

    def cut(x: Array) -> Array:
        """[B, ...] -> [microbatches, B / microbatches, ...]; strided, so that rows stay on the devices they are on."""
        return jnp.moveaxis(x.reshape(-1, microbatches, *x.shape[1:]), 1, 0)

    def join(x: Array, before: int) -> Array:
        """The inverse, with `before` axes between the microbatches' and the batch's."""
        x = jnp.moveaxis(x, 0, before + 1)
        return x.reshape(*x.shape[:before], batch, *x.shape[before + 2 :])

    def stage(params: Tree, inputs: Carry, rows: dict, shared: dict, key: Array | None) -> tuple[Carry, Tree]:
        index = jax.lax.axis_index(axis)
        inside = ctx.replace(shared=shared, key=key)
        start = first + index * local.layers
        onward = [(i, i + 1) for i in range(stages - 1)]

        def tick(arrived: Carry, t: Array) -> tuple[Carry, tuple[Carry, Tree]]:
            mine = jnp.clip(t - index, 0, microbatches - 1)  # while idle: any real rows, whose results nobody reads
            fresh = jax.tree.map(lambda x: x[jnp.minimum(t, microbatches - 1)], inputs)
            given = jax.tree.map(lambda new, old: jnp.where(index == 0, new, old), fresh, arrived)
            at = inside.replace(rows=jax.tree.map(lambda x: x[mine], rows))
            done, _, aux = local(params, given, at, None, start)
            return jax.tree.map(lambda x: jax.lax.ppermute(x, axis, onward), done), (done, aux)

        begin = jax.tree.map(lambda x: x[0], inputs)
        _, ticks = jax.lax.scan(tick, begin, jnp.arange(microbatches + stages - 1))
        carry, aux = jax.tree.map(lambda x: jax.lax.dynamic_slice_in_dim(x, index, microbatches), ticks)
        return jax.tree.map(lambda x: join(x, 0)[None], carry), jax.tree.map(lambda x: join(x, 1), aux)

    everywhere, by_stage = PartitionSpec(), PartitionSpec(axis)
    carry, aux = jax.shard_map(
        stage,
        mesh=mesh,
        in_specs=(everywhere if segment.tied else by_stage, everywhere, everywhere, everywhere, everywhere),
        out_specs=by_stage,
        axis_names={axis},
        check_vma=False,  # model code need not know that it runs inside a stage
    )(params, jax.tree.map(cut, carry), jax.tree.map(cut, rows), ctx.shared, ctx.key)
    return jax.tree.map(lambda x: x[-1], carry), aux
