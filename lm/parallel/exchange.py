"""Rows on their way to the devices that hold their experts and back: what each device does within `jax.shard_map`.

E experts lie in equal runs on the P devices along the mesh axes `over`, their owners; each of these devices has rows
for all of them. Going back is going there reversed, so each is the other's gradient.
"""

import dataclasses

import jax
import jax.numpy as jnp

Array = jax.Array
Axes = tuple[str, ...]


def to_owners(x: Array, over: Axes) -> Array:
    """The rows of this device for each expert, [E, N, ...] -> those of all devices for its own experts,
    [E / P, P N, ...]: one all-to-all of static shape."""
    return jax.lax.all_to_all(x, over, split_axis=0, concat_axis=1, tiled=True)


def from_owners(x: Array, over: Axes) -> Array:
    """The inverse of `to_owners`: [E / P, P N, ...] -> [E, N, ...]."""
    return jax.lax.all_to_all(x, over, split_axis=1, concat_axis=0, tiled=True)


@dataclasses.dataclass(frozen=True)
class RaggedExchange:
    """Where rows lie before and after, of every expert (first axis, E) and sender (second axis, P). Senders have rows
    in the order of their experts; owners get theirs in the order of their experts too, and of senders within each.

    native: by `jax.lax.ragged_all_to_all`, which moves what there is and no more. It lowers on TPU and GPU; elsewhere
    each owner picks its rows out of everybody's, which is the same but slow."""

    before: Array  # [E, P] the first row, among those of its sender
    after: Array  # [E, P] the first row, among those of its owner
    sizes: Array  # [E, P] how many rows
    over: Axes
    native: bool

    @classmethod
    def of(cls, sizes: Array, over: Axes, native: bool) -> "RaggedExchange":
        """Of all rows; `sizes` [E] says how many this device has for each expert."""
        sizes = jnp.swapaxes(jax.lax.all_gather(sizes, over), 0, 1)  # [E, P]
        by_owner = sizes.reshape(sizes.shape[1], -1)  # in the order in which an owner gets them
        after = (jnp.cumsum(by_owner, axis=1) - by_owner).reshape(sizes.shape)
        return cls(jnp.cumsum(sizes, axis=0) - sizes, after, sizes, over, native)

    def most(self) -> Array:
        """The rows of the owner that gets most."""
        return self.sizes.reshape(self.sizes.shape[1], -1).sum(axis=1).max()

    def window(self, start: Array | int, rows: int) -> "RaggedExchange":
        """Of the rows alone that lie at start .. start + rows on their owners, where `start` becomes row 0."""
        first = jnp.clip(self.after, start, start + rows)
        sizes = jnp.clip(self.after + self.sizes, start, start + rows) - first
        before = jnp.where(sizes > 0, self.before + first - self.after, 0)
        return dataclasses.replace(self, before=before, after=first - start, sizes=sizes)

    def received(self) -> Array:
        """Rows that this device gets for each of its own experts, [E / P]."""
        return self._own(self.sizes).sum(axis=1)

    def there(self, x: Array, rows: int) -> Array:
        """Rows x [N, ...] of this device -> those for its experts [rows, ...], zeros behind them."""
        sent, got = self._sent(self.sizes), self._got(self.sizes)
        return self._moved(x, rows, self._sent(self.before), sent, self._sent(self.after), got)

    def back(self, y: Array, rows: int) -> Array:
        """The inverse: what the experts of this device made of rows, [M, ...], -> what became of its own rows
        [rows, ...]; zeros for those outside the window."""
        sent, got = self._got(self.sizes), self._sent(self.sizes)
        return self._moved(y, rows, self._got(self.after), sent, self._got(self.before), got)

    def _own(self, table: Array) -> Array:
        """The lines of this device's experts, [E / P, P]."""
        each = table.shape[0] // table.shape[1]
        return jax.lax.dynamic_slice_in_dim(table, jax.lax.axis_index(self.over) * each, each)

    def _sent(self, table: Array) -> Array:
        """Of what this device sends as a sender, in the order of owners: [E]."""
        return jnp.take(table, jax.lax.axis_index(self.over), axis=1)

    def _got(self, table: Array) -> Array:
        """Of what this device gets as an owner, in the order of senders: [E]."""
        return self._own(table).T.reshape(-1)

    def _moved(self, x: Array, rows: int, start: Array, size: Array, target: Array, got: Array) -> Array:
        """`jax.lax.ragged_all_to_all` into zeros: slices of x, E / P for each device, to rows `target` there."""
        zeros = jnp.zeros((rows, *x.shape[1:]), x.dtype)
        if self.native:
            return jax.lax.ragged_all_to_all(x, zeros, start, size, target, got, axis_name=self.over)
        everybody = jax.lax.all_gather(x, self.over)  # [P, N, ...]
        lists = (v.reshape(len(everybody), -1) for v in (start, size, target))
        start, size, target = (jax.lax.all_to_all(v, self.over, 0, 0)[..., None] for v in lists)  # [P, E / P, 1]
        row = jnp.arange(len(x)) - start
        mine = (row >= 0) & (row < size)  # [P, E / P, N]
        to = jnp.where(mine.any(axis=1), jnp.where(mine, target + row, 0).sum(axis=1), rows)  # past the end: dropped
        return zeros.at[to.reshape(-1)].set(everybody.reshape(-1, *x.shape[1:]), mode="drop")
