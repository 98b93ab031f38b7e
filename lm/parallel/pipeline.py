"""Pipeline parallelism: the repeats of a layer group spread over a mesh axis, microbatches passed from one stage to the
next."""

import dataclasses

import jax
import jax.numpy as jnp
from jax.sharding import PartitionSpec

from lm.core.ctx import Ctx
from lm.core.errors import UserError
from lm.core.mesh import STAGE
from lm.core.param import Tree
from lm.core.walk import Repeat, Repeats, Scan, step_of

Array = jax.Array


@dataclasses.dataclass(frozen=True)
class Pipelined:
    """A walk in stages along the mesh axis `axis` (GPipe, Huang et al. 2019, arXiv 1811.06965).

    Each stage has an equal run of a group's repeats. The batch is cut into `microbatches`; at tick t, stage s walks its
    layers with microbatch t - s and hands the carry on to stage s + 1:

        tick     0  1  2  3  4  5
        stage 0  a  b  c  d  .  .
        stage 1  .  a  b  c  d  .
        stage 2  .  .  a  b  c  d

    so that (stages - 1) / (microbatches + stages - 1) of the time is idle. The backward pass runs the same schedule in
    reverse. Within a stage the other mesh axes work as ever, by the sharding rules of ctx.

    `ctx.rows` is cut like the carry, `ctx.shared` goes to every stage, and aux lies on the stages of its layers. What
    is not repeated (embedding, head, a first layer unlike the others) every stage computes alike. Where ctx has no mesh
    with that axis, this is `Scan`. Call it under `jax.jit`.

    Raises `UserError` when stages do not divide the repeats, or microbatches the batch; and for caches."""

    microbatches: int
    axis: str = STAGE

    def __call__(self, repeat: Repeat, repeats: Repeats, carry: Tree, ctx: Ctx) -> tuple[Tree, list | None, Tree]:
        stages = 1 if ctx.sharding is None else ctx.sharding.mesh.shape.get(self.axis, 1)
        if ctx.sharding is None or stages == 1 or repeats.number == 1:
            return Scan()(repeat, repeats, carry, ctx)
        batch, parts = jax.tree.leaves(carry)[0].shape[0], self.microbatches
        check_stages(repeats.number, stages)
        if batch % parts:
            raise UserError(f"{parts} microbatches of a pipeline do not divide {batch} rows: change one of them")
        if repeats.caches is not None:
            raise UserError("a pipeline has no caches: generate, or remember from batch to batch, without one")

        def stage(own: Tree, common: Tree, inputs: Tree, rows: dict, shared: dict, key: Array | None) -> tuple:
            """What one stage does; `own` are the parameters of its repeats, the rest is the same for all of them."""
            at, here = jax.lax.axis_index(self.axis), repeats.number // stages
            indices, onward = at * here + jnp.arange(here), [(i, i + 1) for i in range(stages - 1)]

            def tick(arrived: Tree, t: Array) -> tuple[Tree, tuple[Tree, Tree]]:
                mine = jnp.clip(t - at, 0, parts - 1)  # while idle: any real rows, whose results nobody reads
                fresh = jax.tree.map(lambda x: x[jnp.minimum(t, parts - 1)], inputs)
                given = jax.tree.map(lambda new, old: jnp.where(at == 0, new, old), fresh, arrived)
                inside = ctx.replace(rows=jax.tree.map(lambda x: x[mine], rows), shared=shared, key=key)
                step = step_of(repeat, common, inside, in_loop=True)
                done, (_, aux) = jax.lax.scan(step, given, (indices, own, None))
                return jax.tree.map(lambda x: jax.lax.ppermute(x, self.axis, onward), done), (done, aux)

            begin = jax.tree.map(lambda x: x[0], inputs)
            _, ticks = jax.lax.scan(tick, begin, jnp.arange(parts + stages - 1))
            carry, aux = jax.tree.map(lambda x: jax.lax.dynamic_slice_in_dim(x, at, parts), ticks)
            return jax.tree.map(lambda x: join(x, 0)[None], carry), jax.tree.map(lambda x: join(x, 1), aux)

        def cut(x: Array) -> Array:
            """[B, ...] -> [microbatches, B / microbatches, ...]; strided, so that rows stay on their devices."""
            return jnp.moveaxis(x.reshape(-1, parts, *x.shape[1:]), 1, 0)

        def join(x: Array, before: int) -> Array:
            """The inverse, with `before` axes between the microbatches' and the batch's."""
            x = jnp.moveaxis(x, 0, before + 1)
            return x.reshape(*x.shape[:before], batch, *x.shape[before + 2 :])

        rows = {"row": jnp.arange(batch)} | ctx.rows  # a microbatch's rows must not count from 0 again
        everywhere, by_stage = PartitionSpec(), PartitionSpec(self.axis)
        carry, aux = jax.shard_map(
            stage,
            mesh=ctx.sharding.mesh,
            in_specs=(by_stage, *[everywhere] * 5),
            out_specs=by_stage,
            axis_names={self.axis},
            check_vma=False,  # model code need not know that it runs inside a stage
        )(repeats.own, repeats.common, jax.tree.map(cut, carry), jax.tree.map(cut, rows), ctx.shared, ctx.key)
        return jax.tree.map(lambda x: x[-1], carry), None, aux


def check_stages(repeats: int, stages: int) -> None:
    """Raise `UserError` where a group's repeats do not spread evenly over the stages."""
    if repeats % stages:
        raise UserError(
            f"{repeats} repeats of a layer group do not spread evenly over {stages} pipeline stages: "
            f"take a number of stages that divides {repeats}, or change the layers"
        )
