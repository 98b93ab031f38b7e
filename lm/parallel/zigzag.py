"""Zig-zag order: a row of 2 n chunks, of which device i of n has the chunks i and 2 n - 1 - i, so that all devices have
as many pairs of tokens to attend to under a causal mask (`lm.kernels.attention.ring`)."""

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import AbstractMesh, Mesh, PartitionSpec

from lm.kernels.attention.ring import zigzag

Array = jax.Array


def zigzagged(x: Array, ways: int) -> Array:
    """x [B, S, ...] in the order of the row -> in zig-zag order; for rows that each device has whole."""
    order = np.concatenate([zigzag(i, ways) for i in range(ways)])
    chunks = x.reshape(x.shape[0], 2 * ways, -1, *x.shape[2:])
    return chunks[:, order].reshape(x.shape)


def in_row_order(x: Array, mesh: Mesh | AbstractMesh, axes: tuple[str, ...], ways: int) -> Array:
    """The inverse, of x [B, S, D] that is cut along `axes`: each device sends one chunk, and then the other.

    Of its two chunks, one has an even number, and one an odd number, and so it is in the order of the row."""

    def here(x: Array) -> Array:
        chunks = x.reshape(x.shape[0], 2, -1, *x.shape[2:])
        odd = jax.lax.axis_index(axes) % 2  # of the first chunk, which has the device's number
        got = []
        for parity in range(2):
            mine = jnp.where(odd == parity, chunks[:, 0], chunks[:, 1])
            to = [(i, chunk // 2) for i in range(ways) for chunk in zigzag(i, ways) if chunk % 2 == parity]
            got.append(jax.lax.ppermute(mine, axes, to))
        return jnp.concatenate(got, axis=1)

    by_token = PartitionSpec(None, axes)
    return jax.shard_map(here, mesh=mesh, in_specs=by_token, out_specs=by_token, axis_names=set(axes), check_vma=False)(
        x
    )
