"""Every grouped matmul of the table against a loop over rows, and the choice among them by place."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jax.sharding import PartitionSpec

from lm.core.ctx import Ctx, Execution
from lm.core.errors import UserError
from lm.core.mesh import Sharding, make_mesh
from lm.kernels.choice import say_once
from lm.kernels.grouped_matmul import blocked, megablox
from lm.kernels.grouped_matmul.select import KERNELS, grouped_matmul, select
from lm.kernels.grouped_matmul.spec import GroupedKernel, RowGroups
from lm.kernels.place import Place, place_of
from lm.train.config import default
from lm.train.parallel import execution_of
from tests import toys

CPU = Place("cpu")
ON_CPU = ("by_row", "blocked", "batched", "ragged_dot", "reference")
SHAPES = {  # rows, groups, width in, widths out: no width is a multiple of anything
    "some": (37, 4, 5, (7,)),
    "two weights": (37, 4, 5, (7, 3)),
    "one row": (1, 4, 5, (7, 3)),
    "one group": (9, 1, 5, (7,)),
    "fewer rows than groups": (3, 5, 4, (6, 2)),
    "room for some": (36, 3, 5, (7, 3)),
    "room for one": (4, 4, 5, (7,)),
}


@pytest.fixture(scope="module", autouse=True)
def small_blocks():
    """So that a group of few rows has several, and last ones of all sizes."""
    with pytest.MonkeyPatch.context() as patch:
        for name, rows in {"STEP": 2, "MOST": 6, "STEP_OUTER": 3, "MOST_OUTER": 9}.items():
            patch.setattr(blocked, name, rows)
        yield


def arrays(shape: str, dtype=np.float32) -> tuple:
    """x; weights; the targets that make the outputs a loss."""
    n, groups, width, outs = SHAPES[shape]
    draw = lambda i, *size: jnp.asarray(np.random.default_rng(i).standard_normal(size), dtype)  # noqa: E731
    ws = tuple(draw(1 + i, groups, width, out) for i, out in enumerate(outs))
    return draw(0, n, width), ws, tuple(draw(9 + i, n, out) for i, out in enumerate(outs))


@functools.cache
def compiled(kernel: GroupedKernel):
    """(x, weights, targets, groups) -> outputs, and gradients of their products with the targets."""

    def all_three(x, ws, targets, groups):
        ys = kernel.multiply(x, ws, groups)
        return ys, kernel.pull_back(targets, ws, groups), kernel.outer(x, targets, groups, jnp.float32)

    return jax.jit(all_three)


def by_hand(x, ws, targets, groups) -> tuple:
    x, ws, targets = jax.tree.map(lambda a: np.asarray(a, np.float64), (x, ws, targets))
    ys, d_x, d_ws = [np.zeros_like(t) for t in targets], np.zeros_like(x), [np.zeros_like(w) for w in ws]
    first = 0
    owners = []  # (row, group)
    for group, size in enumerate(np.asarray(groups.sizes)):
        first = first if groups.room is None else group * groups.room
        owners += [(row, group) for row in range(first, first + size)]
        first += size
    for row, group in owners:
        for y, w, d_w, target in zip(ys, ws, d_ws, targets, strict=True):
            y[row] = x[row] @ w[group]
            d_x[row] += w[group] @ target[row]
            d_w[group] += np.outer(x[row], target[row])
    return tuple(ys), d_x, tuple(d_ws)


@pytest.mark.parametrize("name", ON_CPU)
@settings(max_examples=30)
@given(data=st.data(), shape=st.sampled_from(list(SHAPES)))
def test_each_row_meets_the_matrix_of_its_group(name, data, shape):
    """Groups without a row, one with all, rows that belong to none."""
    x, ws, targets = arrays(shape)
    n, groups = len(x), len(ws[0])
    room = n // groups if n % groups == 0 and data.draw(st.booleans()) else None
    if KERNELS[name].supports(x, ws, room, CPU):
        return
    cuts = sorted(data.draw(st.lists(st.integers(0, n), min_size=groups, max_size=groups)))
    if data.draw(st.booleans()):
        cuts[-1] = n
    sizes = np.diff(cuts, prepend=0).astype(np.int32)
    at = RowGroups(sizes if room is None else np.minimum(sizes, room), room)
    toys.close(compiled(KERNELS[name])(x, ws, targets, at), by_hand(x, ws, targets, at))


def test_megablox_is_one_of_them():
    """As the interpreter of Pallas runs it."""
    named = (megablox.multiply, megablox.pull_back, megablox.outer)
    kernel = GroupedKernel(*(functools.partial(f, interpret=True) for f in named), megablox.supports)
    x, ws, targets = arrays("two weights")
    for sizes in ([20, 0, 9, 1], [0, 37, 0, 0]):
        at = RowGroups(np.array(sizes, np.int32))
        toys.close(compiled(kernel)(x, ws, targets, at), by_hand(x, ws, targets, at), atol=1e-4)


@pytest.mark.parametrize("name", [name for name in ON_CPU if name != "batched"])
def test_half_precision_is_summed_in_float32_and_gradients_of_float32_weights_are_not_rounded(name):
    x, ws, targets = arrays("fewer rows than groups")
    half, at = x.astype(jnp.bfloat16), RowGroups(np.array([1, 0, 2, 0, 0], np.int32))
    ctx = Ctx(execution=Execution(grouped_matmul=name))

    def loss(x, ws):
        ys = grouped_matmul(x, ws, at, ctx)
        return sum((y.astype(jnp.float32) * t).sum() for y, t in zip(ys, targets, strict=True)), ys

    (d_x, d_ws), ys = jax.jit(jax.grad(loss, argnums=(0, 1), has_aux=True))(half, ws)
    assert {a.dtype for a in (d_x, *ys)} == {jnp.dtype(jnp.bfloat16)} and d_ws[0].dtype == jnp.float32
    rounded = jax.tree.map(lambda a: a.astype(jnp.bfloat16).astype(jnp.float32), (half, ws, targets))
    expected = by_hand(*rounded, at)
    toys.close(d_ws, expected[2])
    for mine, exact in ((ys, expected[0]), ((d_x,), (expected[1],))):
        for a, b in zip(mine, exact, strict=True):
            np.testing.assert_allclose(a.astype(jnp.float32), b, rtol=2**-7, atol=2**-9)


@pytest.mark.parametrize("name", ["blocked", "ragged_dot", "reference"])
def test_gradients_by_weights_leave_in_the_dtype_that_is_asked_for(name):
    x, _, targets = arrays("some")
    at = RowGroups(np.array([20, 0, 9, 1], np.int32))
    (whole,), (half,) = (KERNELS[name].outer(x, targets, at, dtype) for dtype in (jnp.float32, jnp.bfloat16))
    assert half.dtype == jnp.bfloat16
    np.testing.assert_array_equal(half, whole.astype(jnp.bfloat16))


@pytest.mark.parametrize(
    ("place", "rows", "room", "best"),
    [
        (CPU, 36, None, "blocked"),
        (CPU, 36, 9, "blocked"),
        (CPU, 4, None, "by_row"),
        (Place("cpu", partitioned=True), 36, None, "blocked"),
        (Place("gpu"), 36, None, "ragged_dot"),
        (Place("gpu"), 36, 9, "batched"),
        (Place("tpu"), 36, None, "megablox"),
        (Place("tpu"), 36, 9, "batched"),
        (Place("tpu", partitioned=True), 36, None, "ragged_dot"),
    ],
)
def test_the_best_one_is_chosen_by_place_and_shapes(place, rows, room, best):
    assert select(jnp.ones((rows, 5)), (jnp.ones((4, 5, 7)),), room, place) is KERNELS[best]


def test_a_kernel_that_is_missed_at_home_is_told_once(caplog):
    say_once.cache_clear()
    for _ in range(2):
        select(jnp.ones((36, 5)), (jnp.ones((4, 5, 7)),), None, Place("tpu", partitioned=True))
    assert caplog.messages == [
        "grouped_matmul: ragged_dot runs in place of megablox (XLA cannot cut a Pallas kernel over devices)"
    ]


def test_places_are_read_off_meshes():
    assert place_of(Ctx()) == CPU
    ctx = Ctx(sharding=Sharding(make_mesh({"data": 2, "tensor": 4})))
    assert place_of(ctx) == Place("cpu", partitioned=True, sharding=ctx.sharding)
    assert place_of(ctx).cut("batch") and not place_of(ctx).cut("seq")
    seen = []

    def inside(x):
        seen.append(place_of(Ctx()))
        return x

    for axes in ({"data"}, {"data", "tensor"}):
        rows = PartitionSpec("data")
        jax.eval_shape(
            jax.shard_map(inside, mesh=ctx.sharding.mesh, in_specs=rows, out_specs=rows, axis_names=axes), jnp.ones(8)
        )
    assert seen == [Place("cpu", partitioned=True), CPU]


def test_execution_names_a_kernel():
    config = default()
    config.train.grouped_matmul = "reference"
    assert execution_of(config, toys.routed()).grouped_matmul == "reference"
    (x, ws, _), groups = arrays("some"), RowGroups(jnp.array([9, 9, 9, 10]))
    with pytest.raises(UserError, match=r"^grouped_matmul='bloked' is no kernel; did you mean 'blocked'\?$"):
        grouped_matmul(x, ws, groups, Ctx(execution=Execution(grouped_matmul="bloked")))
    with pytest.raises(UserError, match=r"^grouped_matmul='megablox' cannot run .* here \(it is for TPUs\): leave it"):
        grouped_matmul(x, ws, groups, Ctx(execution=Execution(grouped_matmul="megablox")))
