"""A pipeline whose stages do forward and backward passes in turn, so that few microbatches are under way at once."""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.sharding import PartitionSpec

from lm.core.errors import UserError
from lm.core.mesh import Sharding
from lm.core.param import Tree, combine, partition
from lm.core.rows import Batch
from lm.core.walk import WalkedLoss, step_of
from lm.parallel.cut import Resumed, WalkCall, before
from lm.parallel.pipeline import Pipelined, check_rows, chunk_of, cut, in_chunks, join, whole
from lm.parallel.schedule import Order

Array = jax.Array
Arrays = list[Array]
COMPILED_ON_TPU = ("blocked", "reference")  # kernels of attention


@dataclasses.dataclass(frozen=True)
class OneForwardOneBackward(Pipelined):
    """1F1B (PipeDream-flush: Narayanan et al. 2021, arXiv 2006.09503; interleaved with `chunks`: arXiv 2104.04473).

    A microbatch's backward pass begins as soon as the last stage has its loss. At each tick a stage does a forward pass
    (a, b ..) and a backward pass (a', b' ..), of another microbatch:

        tick     0  1  2    3    4    5    6    7    8
        stage 0  a  b  c .  d .  e a' f b'   c'   d'   e'  ..
        stage 1  .  a  b .  c a' d b' e c' f d'   e'   f'
        stage 2  .  .  a a' b b' c c' d d' e e' f f'   .

    As much time is idle as with GPipe, but a stage keeps what the backward passes need of at most 2 stages - 1
    microbatches, however many there are. (Stages that hand on at half a tick keep half as many. Here all do the same at
    a time, as devices that run one program must, and what is sent has a tick to arrive.) What is kept for a microbatch
    is what `Execution.remat` says. The layers are those of one group, in a model that computes embedding before and
    head behind it; with a loss that is a sum over rows. What comes before the group is computed anew for its backward
    pass, and every stage computes it, and head and loss, alike.

    Evaluations, which have no backward pass, walk as `Pipelined`."""

    def kept(self, order: Order) -> int:
        return order.slots

    def value_and_grad(self, loss: WalkedLoss, sharding: Sharding | None) -> Callable:
        order = self.order(sharding)
        if sharding is None or order.stages == 1:
            return super().value_and_grad(loss, sharding)
        return functools.partial(_value_and_grad, self, order, sharding, loss)


def _value_and_grad(
    walk: OneForwardOneBackward,
    order: Order,
    sharding: Sharding,
    loss: WalkedLoss,
    weights: Tree,
    fixed: Tree,
    batch: Batch,
    memory: None,
) -> tuple:
    """As `Walk.value_and_grad` has it."""
    assert memory is None  # configs are checked
    check_rows(len(batch["tokens"]), order.microbatches)
    entry = before(lambda walk: loss(walk, weights, fixed, batch, None))
    check_compiles(sharding, entry.ctx.execution.attention)
    layers = entry.repeats
    order.check(layers.number)
    leaves, treedef = jax.tree.flatten((weights, fixed))
    place, trained = {id(x): i for i, x in enumerate(leaves)}, len(jax.tree.leaves(weights))
    inner = jax.tree.map(lambda x: place[id(x)], (layers.own, layers.common))  # layers have parameters as they are
    trains = jax.tree.map(lambda i: i < trained, inner)
    own, own_frozen = partition(layers.own, trains[0])
    common, common_frozen = partition(layers.common, trains[1])
    inside = jax.tree.leaves(inner)
    outer, rest = jax.tree.unflatten(treedef, [None if i in inside else x for i, x in enumerate(leaves)])

    everywhere, by_chunk, by_stage = PartitionSpec(), PartitionSpec(None, walk.axis), PartitionSpec(walk.axis)
    grads, results = jax.shard_map(
        lambda *given: _Stage(walk.axis, order, loss, layers.number, *given).run(),
        mesh=sharding.mesh,
        in_specs=(by_chunk, by_chunk, *[everywhere] * 5),
        out_specs=(Gradients(by_chunk, everywhere, everywhere, everywhere), by_stage),
        axis_names={walk.axis},
        check_vma=False,  # model code need not know that it runs inside a stage
    )(
        *in_chunks((own, own_frozen), order.chunks),
        *(common, common_frozen),
        *(outer, rest),
        cut(batch, order.microbatches),
    )
    d_outer = grads.outer
    if grads.shared:  # worked out of parameters alone, so whatever the rows
        _, pull = jax.vjp(lambda w: _floats(before(lambda walk: loss(walk, w, rest, batch, None)).ctx.shared)[0], outer)
        d_outer = jax.tree.map(jnp.add, d_outer, pull(grads.shared)[0])
    of_layers = jax.tree.leaves((whole(grads.own), grads.common))
    moved = dict(zip([i for i in inside if i < trained], of_layers, strict=True))
    others = iter(jax.tree.leaves(d_outer))
    by_weight = [moved[i] if i in moved else next(others) for i in range(trained)]
    total, weight, metrics, aux = jax.tree.map(lambda x: x[-1], results)  # of the last stage
    aux = jax.tree.map(lambda x: join(x, 1), aux)
    return (total, (weight, metrics, aux)), jax.tree.unflatten(jax.tree.structure(weights), by_weight)


def check_compiles(sharding: Sharding, attention: str | None) -> None:
    """Raise `UserError` for kernels of attention on whose backward pass within a stage the compiler for TPUs aborts:
    seen with libtpu 0.0.42.1, in its SPMD partitioner, with splash attention, which is the choice there."""
    if sharding.mesh.devices.flat[0].platform == "tpu" and attention not in COMPILED_ON_TPU:
        raise UserError(
            "the compiler for TPUs aborts on splash attention's backward pass in one forward, one backward (1f1b): set "
            f"config.train.attention={COMPILED_ON_TPU[0]}, or take gpipe"
        )


class Gradients(NamedTuple):
    """What a stage sums up."""

    own: Tree  # of its layers
    common: Tree  # of what all layers have in common
    outer: Tree  # of all other weights
    shared: Tree  # of what is in `ctx.shared`


class StageState(NamedTuple):
    """What a stage has, between two ticks."""

    kept: Arrays  # what backward passes need of items, [slots, ...]
    arrived: Tree  # from the stage before: carry, and aux of the layers so far, leaves [repeats, ...]
    returned: Arrays  # from the stage after: the gradient by what it was given
    grads: Gradients
    sums: tuple  # total, weight, metrics: those of the last stage count
    aux: Tree  # leaves [microbatches, layers, rows, ...]; likewise


@dataclasses.dataclass
class _Stage:
    """A stage at work, within `jax.shard_map`."""

    axis: str
    order: Order
    loss: WalkedLoss
    repeats: int
    own: Tree  # weights of its layers, leaves [chunks, here, ...]
    own_frozen: Tree  # what does not train of them
    common: Tree
    common_frozen: Tree
    outer: Tree  # all other weights
    fixed: Tree
    parts: Batch  # leaves [microbatches, rows, ...]

    def run(self) -> tuple[Gradients, tuple]:
        self.at, self.last = jax.lax.axis_index(self.axis), self.order.stages - 1
        delay, ticks = self.order.delay, self.order.ticks
        state = self.begin()
        for first, end in ((0, delay), (delay, ticks), (ticks, ticks + delay)):
            tick = functools.partial(self.tick, forward=first < ticks, backward=first > 0 or not delay)
            if first < end:
                state, _ = jax.lax.scan(tick, state, jnp.arange(first, end))
        own, *everywhere = state.grads
        grads = Gradients(own, *jax.lax.psum(everywhere, self.axis))
        return grads, jax.tree.map(lambda x: x[None], (*state.sums, state.aux))

    def begin(self) -> StageState:
        """Zeros."""

        def first() -> tuple:
            """What the first microbatch enters with; what a stage makes of it."""
            entry = self.enter(self.outer, 0)
            return entry.carry, self.walk(entry, self.layers(0), entry.carry)[1]

        carry, aux = jax.eval_shape(first)
        aux = jax.tree.map(lambda x: jax.ShapeDtypeStruct((self.repeats, *x.shape[1:]), x.dtype), aux)
        arrived = _zeros((carry, aux))
        kept, done = jax.eval_shape(lambda: self.forward(arrived, 0))
        sums, of_rows, *_ = jax.eval_shape(self.finish, done, 0)
        grads = Gradients(self.own, self.common, self.outer, _floats(self.enter(self.outer, 0).ctx.shared)[0])
        in_slots = jax.tree.map(lambda x: jax.ShapeDtypeStruct((self.order.slots, *x.shape), x.dtype), kept)
        by_part = jax.tree.map(lambda x: jax.ShapeDtypeStruct((self.order.microbatches, *x.shape), x.dtype), of_rows)
        return _zeros(StageState(in_slots, arrived, _floats(arrived)[0], grads, sums, by_part))

    def tick(self, state: StageState, t: Array, forward: bool, backward: bool) -> tuple[StageState, None]:
        d_done = state.returned
        if forward:
            kept, done = self.forward(state.arrived, t)
            state = state._replace(
                kept=_written(state.kept, kept, (t - self.at) % self.order.slots),  # idle ones write where nobody reads
                arrived=jax.tree.map(lambda x: jax.lax.ppermute(x, self.axis, self.onward(1)), done),
            )
            if backward:
                state, d_done = self.finished(state, done, t)
        return (self.backward(state, d_done, t) if backward else state), None

    def forward(self, arrived: Tree, t: Array | int) -> tuple[Arrays, Tree]:
        """What this tick's backward pass will need, and what is handed on."""
        round_, i = self.order.item(jnp.clip(t - self.at, 0, self.order.items - 1))  # while idle: any real rows
        entry = self.enter(self.outer, i)
        entering, empty = (self.at == 0) & (round_ == 0), jax.tree.map(jnp.zeros_like, arrived[1])
        given = jax.tree.map(lambda new, old: jnp.where(entering, new, old), (entry.carry, empty), arrived)
        (floats, rejoined), (shared, with_shared) = _floats(given), _floats(entry.ctx.shared)
        layers = self.layers(round_)

        def walked(own: Tree, common: Tree, shared: Arrays, floats: Arrays) -> tuple[Arrays, Tree]:
            inside = entry._replace(ctx=entry.ctx.replace(shared=with_shared(shared)))
            carry, aux = rejoined(floats)
            carry, here = self.walk(inside, layers._replace(own=own, common=common), carry)
            start = layers.indices[0]
            aux = jax.tree.map(lambda x, new: jax.lax.dynamic_update_slice_in_dim(x, new, start, 0), aux, here)
            return _floats((carry, aux))[0], (carry, aux)

        _, pull, done = jax.vjp(walked, layers.own, layers.common, shared, floats, has_aux=True)
        kept, self.restored = _apart(pull, self.at_hand(layers, entry))
        return kept, done

    def finished(self, state: StageState, done: Tree, t: Array) -> tuple[StageState, Arrays]:
        """The last stage has the loss of what is done with all rounds, and its gradient; others go by what returns."""
        round_, i = self.order.backward_item(t - self.order.delay)
        begins = round_ == self.order.chunks - 1

        def finish() -> tuple:
            return self.finish(done, i)

        if self.order.chunks == 1:
            sums, of_rows, d_outer, d_done = finish()
        else:  # all stages agree on it, which collectives within need
            sums, of_rows, d_outer, d_done = jax.lax.cond(begins, finish, lambda: _zeros(jax.eval_shape(finish)))
        here = (self.at == self.last) & begins
        state = state._replace(
            sums=jax.tree.map(lambda x, new: x + jnp.where(here, new, 0), state.sums, sums),
            aux=jax.tree.map(lambda x, new: jnp.where(here, _at(x, new, i), x), state.aux, of_rows),
            grads=state.grads._replace(outer=_plus(state.grads.outer, d_outer, here)),
        )
        return state, [jnp.where(here, d, back) for d, back in zip(d_done, state.returned, strict=True)]

    def finish(self, done: Tree, i: Array | int) -> tuple:
        """Head and loss of microbatch i: (sums, aux, gradient by the weights, gradient by what is done)."""
        floats, rejoined = _floats(done)

        def loss(outer: Tree, floats: Arrays) -> tuple:
            return self.loss(Resumed(*rejoined(floats)), outer, self.fixed, self.part(i), None)

        (total, (weight, metrics, aux)), grads = jax.value_and_grad(loss, (0, 1), has_aux=True)(self.outer, floats)
        return (total, weight, metrics), aux, *grads

    def backward(self, state: StageState, d_done: Arrays, t: Array) -> StageState:
        n = t - self.order.delay - (self.last - self.at)
        works = (n >= 0) & (n < self.order.items)
        round_, i = self.order.backward_item(jnp.clip(n, 0, self.order.items - 1))
        floats_of = lambda outer: _floats(self.enter(outer, i).carry)[0]  # noqa: E731
        entry, layers = self.enter(self.outer, i), self.layers(round_)
        slot = self.order.number(round_, i) % self.order.slots
        pull = self.restored([x[slot] for x in state.kept], self.at_hand(layers, entry))
        d_own, d_common, d_shared, d_given = pull(d_done)
        entering, (_, pull) = works & (self.at == 0) & (round_ == 0), jax.vjp(floats_of, self.outer)
        (d_outer,) = pull([jnp.where(entering, d, 0) for d in d_given[: len(_floats(entry.carry)[0])]])
        grads = state.grads
        return state._replace(
            returned=[jax.lax.ppermute(x, self.axis, self.onward(-1)) for x in d_given],
            grads=Gradients(
                jax.tree.map(lambda x, d: _at(x, x[round_] + jnp.where(works, d, 0), round_), grads.own, d_own),
                _plus(grads.common, d_common, works),
                jax.tree.map(jnp.add, grads.outer, d_outer),
                _plus(grads.shared, d_shared, works),
            ),
        )

    # What a tick is made of

    def enter(self, outer: Tree, i: Array | int) -> WalkCall:
        """What microbatch i enters the layers with."""
        part = self.part(i)
        entry = before(lambda walk: self.loss(walk, outer, self.fixed, part, None))
        given = {id(x) for x in part.values()}
        for name, x in entry.ctx.rows.items():
            if id(x) not in given and jnp.issubdtype(x.dtype, jnp.inexact):
                raise UserError(f"one forward, one backward gives the rows {name!r} no gradient: take gpipe")
        return entry

    def part(self, i: Array | int) -> Batch:
        return jax.tree.map(lambda x: x[i], self.parts)

    def layers(self, round_: Array | int) -> "Layers":
        """Those of a round."""
        here = self.repeats // (self.order.stages * self.order.chunks)
        own, indices = chunk_of(self.own, round_, self.at, self.order, here)
        own_frozen, _ = chunk_of(self.own_frozen, round_, self.at, self.order, here)
        return Layers(own, own_frozen, self.common, self.common_frozen, indices)

    def walk(self, entry: WalkCall, layers: "Layers", carry: Tree) -> tuple[Tree, Tree]:
        """Carry and aux of some layers."""
        step = step_of(entry.repeat, combine(layers.common, layers.common_frozen), entry.ctx, in_loop=True)
        if entry.ctx.execution.remat == "none":
            rows = jax.tree.leaves(carry)[0].shape[0]
            step = jax.checkpoint(step, policy=functools.partial(_kept, rows), prevent_cse=False)
        carry, (_, aux) = jax.lax.scan(step, carry, (layers.indices, combine(layers.own, layers.own_frozen), None))
        return carry, aux

    def at_hand(self, layers: "Layers", entry: WalkCall) -> Arrays:
        """What a backward pass need not keep from the forward pass."""
        return jax.tree.leaves((layers, entry.ctx.shared, entry.ctx.key))

    def onward(self, by: int) -> list[tuple[int, int]]:
        """From each stage to the next, or the one before; in a circle if microbatches go round."""
        stages = self.order.stages
        pairs = [(i, (i + by) % stages) for i in range(stages)]
        return pairs if self.order.chunks > 1 else [(a, b) for a, b in pairs if b - a == by]


class Layers(NamedTuple):
    """Weights of the layers that a stage walks at one tick, trained and frozen; their indices."""

    own: Tree
    own_frozen: Tree
    common: Tree
    common_frozen: Tree
    indices: Array


def _apart(pull: Callable, at_hand: Arrays) -> tuple[Arrays, Callable[[Arrays, Arrays], Callable]]:
    """What a backward pass has saved, less what will be at hand; and how to put it together again."""
    leaves, treedef = jax.tree.flatten(pull)
    known = {id(x): i for i, x in enumerate(at_hand)}
    place = [known.get(id(x)) for x in leaves]

    def restored(kept: Arrays, at_hand: Arrays) -> Callable:
        rest = iter(kept)
        return jax.tree.unflatten(treedef, [next(rest) if i is None else at_hand[i] for i in place])

    return [x for x, i in zip(leaves, place, strict=True) if i is None], restored


def _kept(rows: int, primitive: Any, *given: Any, **_: Any) -> bool:
    """A policy of `jax.checkpoint`: all but weights in the dtype of the computation, of which each microbatch would
    keep a copy; what has rows is no weight."""
    return primitive.name != "convert_element_type" or given[0].shape[:1] == (rows,)


def _floats(tree: Tree) -> tuple[Arrays, Callable[[Arrays], Tree]]:
    """The leaves that have gradients, and how to put others in their place."""
    leaves, treedef = jax.tree.flatten(tree)
    where = [jnp.issubdtype(x.dtype, jnp.inexact) for x in leaves]

    def joined(floats: Arrays) -> Tree:
        rest = iter(floats)
        filled = [next(rest) if is_float else x for x, is_float in zip(leaves, where, strict=True)]
        return jax.tree.unflatten(treedef, filled)

    return [x for x, is_float in zip(leaves, where, strict=True) if is_float], joined


def _zeros(shapes: Tree) -> Tree:
    return jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), shapes)


def _plus(sums: Tree, more: Tree, counts: Array) -> Tree:
    return jax.tree.map(lambda x, new: x + jnp.where(counts, new, 0), sums, more)


def _at(x: Array, new: Array, i: Array | int) -> Array:
    """x with `new` at place i of its first axis."""
    return jax.lax.dynamic_update_index_in_dim(x, new, i, 0)


def _written(slots: Arrays, items: Arrays, slot: Array) -> Arrays:
    return [_at(x, new, slot) for x, new in zip(slots, items, strict=True)]
