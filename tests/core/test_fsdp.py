"""Weights that devices share out: read as if they were whole, and each gradient added up into the shards."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import PartitionSpec

from lm.core.ctx import Ctx
from lm.core.fsdp import FullySharded, fully_sharded
from lm.core.leaf import dense, dot, dots, take
from lm.core.mesh import Sharding, halved, make_mesh
from lm.core.param import Constant, Param, initialize
from lm.core.rules import PRESETS
from lm.kernels.cross_entropy.select import cross_entropy
from lm.parallel.rows import summed_over_tokens
from tpu import hlo
from tpu.work import work

VOCAB, WIDTH, HIDDEN, ROWS, LENGTH = 32, 8, 16, 8, 6
SPEC = {
    "table": Param((VOCAB, WIDTH), ("vocab", "embed")),
    "up": Param((WIDTH, HIDDEN), ("embed", "mlp")),
    "bias": Param((HIDDEN,), ("mlp",), Constant(0.5), "bias"),
    "experts": Param((4, WIDTH, HIDDEN), ("expert", "embed", "mlp")),
    "small": Param((1, WIDTH), (None, "embed"), kind="buffer"),
}
PARAMS = initialize(SPEC, jax.random.key(0))
IDS = jax.random.randint(jax.random.key(1), (ROWS, LENGTH), 0, VOCAB)
MESHES = {
    "fsdp": Sharding(make_mesh({"data": 2, "fsdp": 4})),
    "tensor": Sharding(make_mesh({"data": 1, "fsdp": 2, "context": 2, "tensor": 2})),
    "zero2": Sharding(make_mesh({"data": 2, "fsdp": 4}), zero=2),
    "sequence": Sharding(make_mesh({"fsdp": 4, "tensor": 2}), PRESETS["sequence"]),
    "3d": Sharding(make_mesh({"fsdp": 1, "depth": 2, "row": 2, "column": 2}), PRESETS["3d"]),
}


def placed(sharding):
    return jax.device_put(PARAMS, sharding.tree(SPEC))


def loss(params, x, ids, sharding=None, chunk=2):
    weights = jnp.ones(ids.shape)
    total, each = summed_over_tokens(
        lambda _, p, *rows: cross_entropy(
            lambda p, h: dot(h, p["table"], transpose=True, dtype=jnp.float32), p, *rows, Ctx(), chunk=chunk
        ),
        sharding,
        params,
        x,
        ids,
        weights,
    )
    return total, each


def forward(params, ids, dtype=jnp.float32, sharding=None):
    """Looks up, multiplies twice, and scores by the table that it looked up in."""
    x = take(params["table"], ids, dtype)
    h = jnp.tanh(dot(x, params["up"], params["bias"]))
    x = x + dot(h, dense(params["up"], dtype).T)
    return loss({"table": params["table"]}, x, ids, sharding)[0]


@pytest.mark.parametrize("name", MESHES)
def test_values_and_gradients_are_those_of_whole_weights(name):
    sharding = MESHES[name]

    def ours(params, ids):
        return forward(fully_sharded(params, SPEC, sharding), ids, sharding=sharding)

    value, gradients = jax.jit(jax.value_and_grad(ours))(placed(sharding), IDS)
    expected, plain = jax.value_and_grad(forward)(PARAMS, IDS)
    np.testing.assert_allclose(value, expected, rtol=1e-5)
    for path in ("table", "up", "bias"):
        np.testing.assert_allclose(gradients[path], plain[path], atol=2e-5, err_msg=path)
    if name not in ("3d", "zero2"):
        assert gradients["up"].sharding.is_equivalent_to(sharding.param(SPEC["up"]), 2)


def test_in_two_steps_they_are_the_same(monkeypatch):
    """Where the mesh has an axis along which TPUs do not gather at once, for products and within `jax.shard_map`."""
    monkeypatch.setattr("lm.core.fsdp.halves_of", halved)
    sharding = Sharding(make_mesh({"fsdp": 8}))
    params = placed(sharding)

    def ours(params, ids):
        return forward(fully_sharded(params, SPEC, sharding), ids, sharding=sharding)

    run = jax.jit(jax.value_and_grad(ours)).lower(params, IDS).compile()
    groups = {c.groups for c in (c for c, _ in work(hlo.read(run.as_text()), 8).collectives) if c.kind == "all-gather"}
    value, gradients = run(params, IDS)
    expected, plain = jax.value_and_grad(forward)(PARAMS, IDS)
    np.testing.assert_allclose(value, expected, rtol=1e-5)
    for path in ("table", "up", "bias"):
        np.testing.assert_allclose(gradients[path], plain[path], atol=2e-5, err_msg=path)
    assert ((0, 1), (2, 3), (4, 5), (6, 7)) in groups


def test_which_weights_are_shared_out():
    """Matrices and tables, of which devices with rows of their own have shards; experts stay with their owners."""
    sharding = Sharding(make_mesh({"fsdp": 2, "expert": 2, "tensor": 2}))
    params = fully_sharded(PARAMS, SPEC, sharding)
    assert {name for name, w in params.items() if isinstance(w, FullySharded)} == {"table", "up", "experts"}
    assert params["up"].shards.cut.spec == PartitionSpec("fsdp", "tensor")
    assert params["up"].shards.whole.spec == PartitionSpec(None, "tensor")
    assert params["experts"].shards.cut.spec == PartitionSpec("expert", "fsdp", "tensor")
    assert params["experts"].shards.whole.spec == PartitionSpec("expert", None, "tensor")
    assert fully_sharded(PARAMS, SPEC, None) is PARAMS
    assert fully_sharded(PARAMS, SPEC, Sharding(make_mesh({"data": 8}))) == PARAMS
    assert fully_sharded({**PARAMS, "up": None}, SPEC, sharding)["up"] is None


def test_several_weights_are_read_like_one():
    sharding = MESHES["fsdp"]
    params = fully_sharded(placed(sharding), SPEC, sharding)
    x = jax.random.normal(jax.random.key(2), (ROWS, WIDTH))
    one, other = dots(x, [params["up"], params["up"]], [None, params["bias"]])
    np.testing.assert_allclose(one, x @ PARAMS["up"], atol=1e-5)
    np.testing.assert_allclose(other, one + 0.5, atol=1e-5)


@pytest.mark.parametrize("name", ["fsdp", "sequence"])
def test_gradients_are_added_up_in_a_dtype_of_choice(name):
    sharding, found = MESHES[name], {}
    for sums in ("float32", "bfloat16"):

        def ours(params, ids, sums=sums):
            return forward(fully_sharded(params, SPEC, sharding, jnp.dtype(sums)), ids, jnp.bfloat16, sharding)

        found[sums] = jax.jit(jax.grad(ours))(placed(sharding), IDS)
    plain = jax.grad(forward)(PARAMS, IDS)
    for path in ("table", "up"):
        for gradients in found.values():
            np.testing.assert_allclose(gradients[path], plain[path], atol=0.05 * float(jnp.abs(plain[path]).max()))
        assert (found["float32"][path] != found["bfloat16"][path]).any()


@pytest.mark.parametrize("name", ["fsdp", "tensor"])
def test_what_several_devices_have_of_the_gradient_of_an_input_is_added_up_in_it_too(name):
    """Those that share out a weight's outputs; where nothing is added up, nothing is rounded before the end."""
    sharding = MESHES[name]
    x = jax.random.normal(jax.random.key(2), (ROWS, LENGTH, WIDTH), jnp.bfloat16)

    def gradient(sums):
        def total(x, params):
            return dot(x, fully_sharded(params, SPEC, sharding, sums)["up"]).astype(jnp.float32).sum()

        return jax.jit(jax.grad(total)).lower(x, placed(sharding)).as_text()

    product = f"-> tensor<{ROWS}x{LENGTH}x{WIDTH}xf32>"
    assert product in gradient(jnp.float32)
    assert (product in gradient(jnp.bfloat16)) == (name == "fsdp")


def test_a_loop_over_tokens_communicates_once():
    """However many chunks there are: parameters are gathered before, gradients added up after."""
    sharding = MESHES["fsdp"]
    x = jax.device_put(jax.random.normal(jax.random.key(2), (ROWS, LENGTH, WIDTH)), sharding.named(("batch",)))

    def ours(params, x, ids):
        return loss({"table": fully_sharded(params, SPEC, sharding)["table"]}, x, ids, sharding, chunk=1)[0]

    compiled = jax.jit(jax.grad(ours, argnums=(0, 1))).lower(placed(sharding), x, IDS).compile()
    done = work(hlo.read(compiled.as_text()), 8)
    found = [(c.kind, runs) for c, runs in done.collectives]
    assert found and {runs for _, runs in found} == {1}, found


def test_tokens_that_do_not_spread_are_summed_together():
    ids = IDS[:6]
    x = jax.random.normal(jax.random.key(2), (6, LENGTH, WIDTH))
    params = {"table": PARAMS["table"]}
    (total, each), (expected, plain) = loss(params, x, ids, MESHES["fsdp"]), loss(params, x, ids)
    np.testing.assert_allclose(total, expected, rtol=1e-6)
    np.testing.assert_allclose(each.nll, plain.nll, rtol=1e-6)
