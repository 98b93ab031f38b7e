"""Rows reach the devices of their experts, in order, and come back."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jax.sharding import PartitionSpec

from lm.core.mesh import make_mesh
from lm.parallel.exchange import RaggedExchange, from_owners, to_owners

DEVICES, EXPERTS, ROWS, ROOM = 4, 8, 6, 9  # two experts a device
SIZES = np.array([[0, 0, 0, 4, 0, 1, 0, 1], [0, 0, 2, 4, 0, 0, 0, 0], [0, 1, 1, 3, 0, 0, 1, 0], [6] + [0] * 7])
OVER = ("data", "expert")  # the order of the axes is that of the devices
spread = functools.partial(
    jax.shard_map,
    mesh=make_mesh({"data": 2, "expert": 2}, jax.devices()[:DEVICES]),
    in_specs=PartitionSpec(OVER),
    out_specs=PartitionSpec(OVER),
    check_vma=False,
)


@functools.partial(jax.jit, static_argnames="native")
def there_and_back(x, sizes, start, native=False):
    """x [P, N, 1], sizes [P, E] -> what each device got, of what expert, and what came back with 1 added to it."""

    def here(x, sizes, start):
        whole = RaggedExchange.of(sizes[0], OVER, native)
        part = whole.window(start[0], ROOM)
        got = part.there(x[0], ROOM)
        return got[None], part.received()[None], part.back(got + 1, ROWS)[None], whole.most()[None]

    return spread(here)(x, sizes, jnp.full(DEVICES, start))


@settings(max_examples=60)
@given(
    st.lists(st.lists(st.integers(0, EXPERTS - 1), max_size=ROWS), min_size=DEVICES, max_size=DEVICES),
    st.sampled_from([0, ROOM, 2 * ROOM]),
)
def test_rows_arrive_in_the_order_of_experts_and_come_back(picks, start):
    x = 1.0 + np.arange(DEVICES * ROWS).reshape(DEVICES, ROWS, 1)
    sizes = np.array([np.bincount(np.array(mine, int), minlength=EXPERTS) for mine in picks])
    got, received, back, most = map(np.array, there_and_back(x, sizes, start))
    for owner in range(DEVICES):
        rows, counts = [], []
        for expert in (2 * owner, 2 * owner + 1):
            before = len(rows)
            for sender in range(DEVICES):
                first = sizes[sender, :expert].sum()
                rows += [(i, sender) for i in range(first, first + sizes[sender, expert])]
            counts.append((before, len(rows)))
        window = rows[start : start + ROOM]
        expected = np.zeros(ROOM)
        expected[: len(window)] = [x[sender, i, 0] for i, sender in window]
        assert got[owner, :, 0].tolist() == expected.tolist()
        assert received[owner].tolist() == [np.ptp(np.clip(ends, start, start + ROOM)) for ends in counts]
        for i, sender in window:
            assert back[sender, i, 0] == x[sender, i, 0] + 1
            back[sender, i] = 0
    assert not back.any(), "rows outside the window"
    assert (most == sizes.sum(axis=0).reshape(DEVICES, -1).sum(axis=1).max()).all()


def by_the_book(x, out, input_offsets, send_sizes, output_offsets, recv_sizes, *, axis_name):
    """What the documentation of `jax.lax.ragged_all_to_all` says, for this platform, which does not have it."""
    everybody, per_device = jax.lax.all_gather(x, axis_name), len(send_sizes) // DEVICES
    first, size, target = (
        jax.lax.all_to_all(v, axis_name, 0, 0, tiled=True) for v in (input_offsets, send_sizes, output_offsets)
    )
    rows = jnp.arange(len(out))
    for i in range(len(size)):
        received = (rows >= target[i]) & (rows < target[i] + recv_sizes[i])
        out = jnp.where(received[:, None], everybody[i // per_device][rows + first[i] - target[i]], out)
    return jnp.where((size == recv_sizes).all(), out, jnp.nan)


@pytest.mark.parametrize("start", [0, ROOM])
def test_what_is_asked_of_the_collective(monkeypatch, start):
    monkeypatch.setattr(jax.lax, "ragged_all_to_all", by_the_book)
    x = jax.random.normal(jax.random.key(0), (DEVICES, ROWS, 1))
    for native, other in zip(there_and_back(x, SIZES, start, True), there_and_back(x, SIZES, start), strict=True):
        np.testing.assert_array_equal(native, other)


def test_slots_of_experts_go_to_their_owners():
    x = np.arange(DEVICES * EXPERTS * 3.0).reshape(DEVICES, EXPERTS, 3)  # [P, E, slots]

    def here(x):
        got = to_owners(x[0], OVER)
        return got[None], from_owners(got, OVER)[None]

    got, back = jax.jit(spread(here))(x)
    assert (got == np.moveaxis(x, 0, 1).reshape(DEVICES, 2, 3 * DEVICES)).all() and (back == x).all()


def test_gradients_take_the_same_way():
    """d/dx of a weighted sum of what came back is that weight, of rows within the window."""
    x = jax.random.normal(jax.random.key(0), (DEVICES, ROWS, 1))
    weights = jax.random.normal(jax.random.key(1), x.shape)
    _, _, back, most = there_and_back(x, SIZES, 0)
    grad = jax.jit(jax.grad(lambda x: (there_and_back(x, SIZES, 0)[2] * weights).sum()))(x)
    assert (most == 14).all() and 0 < (np.asarray(back) == 0).sum() < x.size
    np.testing.assert_array_equal(grad, np.where(np.asarray(back) == 0, 0, weights))
