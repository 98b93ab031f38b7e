"""A segment spread over four stages equals the segment on one device."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, Mesh, PartitionSpec

from lm.core.ctx import Ctx
from lm.core.errors import UserError
from lm.core.mesh import RULES, Sharding
from lm.model.block import Block
from lm.model.layers import LayerNorm
from lm.model.moe.layer import SoftmaxRouter
from lm.model.residual import ResiDual
from lm.model.stack import LayerGroup
from lm.parallel.pipeline import pipelined
from tests import toys
from tests.toys import D

ROWS, LENGTH = 8, 4


@pytest.fixture(scope="module")
def mesh() -> Mesh:
    devices = np.asarray(jax.devices()).reshape(4, 2)
    return Mesh(devices, ("pipe", "data"), axis_types=(AxisType.Auto,) * 2)


def two_streams_with_experts() -> LayerGroup:
    """A carry of two arrays, dropout, and router statistics that depend on padding; two blocks in the pattern."""
    wiring = ResiDual(LayerNorm(), dropout=0.25)
    biased = toys.attention(terms=(toys.BucketedBias(buckets=6, farthest=7),))
    routed = toys.experts(SoftmaxRouter(k=2, init=toys.WIDE), capacity_factor=1.0)
    return LayerGroup((Block((("attention", biased),), wiring), Block((("experts", routed),), wiring)), repeats=4)


def tied() -> LayerGroup:
    return LayerGroup((Block((("attention", toys.attention(dropout=0.25)),), toys.pre),), repeats=8, tied=True)


def inputs(segment: LayerGroup) -> tuple:
    x = jax.random.normal(jax.random.key(0), (ROWS, LENGTH, D))
    rows = {
        "positions": jnp.broadcast_to(jnp.arange(LENGTH), (ROWS, LENGTH)),
        "segments": jnp.asarray(np.arange(LENGTH) < 2 + np.arange(ROWS)[:, None] % 3, jnp.int32),
    }
    shared = {"relative_bias": jax.random.normal(jax.random.key(1), (6, toys.HEADS))}
    return toys.values(segment.spec(D)), x, Ctx(rows=rows, shared=shared, key=jax.random.key(2))


@functools.partial(jax.jit, static_argnums=(0, 4))
def value_and_grads(segment, params, x, ctx, run):
    """Value, gradients (parameters, inputs, shared values) and statistics of a segment."""

    def loss(params, x, shared):
        wiring = segment.pattern[0].residual
        carry, out = run(params, wiring.enter(x), ctx.replace(shared=shared))
        return jnp.square(wiring.leave(carry, jnp.tanh)).mean(), out

    return jax.value_and_grad(loss, argnums=(0, 1, 2), has_aux=True)(params, x, ctx.shared)


@pytest.mark.parametrize(("make", "microbatches"), [(two_streams_with_experts, 4), (tied, 2)])
def test_stages_compute_what_one_device_does(make, microbatches, mesh):
    segment = make()
    params, x, ctx = inputs(segment)
    if segment.tied:
        ctx = ctx.replace(rows=ctx.rows | {"row": jnp.arange(ROWS) + 100})

    def alone(params, carry, ctx):
        carry, _, out = segment(params, carry, ctx, None, 3)
        return carry, out

    def staged(params, carry, ctx):
        return pipelined(segment, params, carry, ctx, mesh, "pipe", microbatches, 3)

    expected = value_and_grads(segment, params, x, ctx, alone)
    toys.close(value_and_grads(segment, params, x, ctx, staged), expected)
    assert all(np.abs(g).max() > 0 for g in jax.tree.leaves(expected[1][0]))
    if not segment.tied:
        assert expected[0][1]["1"]["experts"]["router"]["dropped"].sum() > 0


def test_parameters_stay_on_their_stages_and_rows_on_their_devices(mesh):
    """Beside the pipeline's axis, the rules of ctx go on sharding rows over the other one."""
    segment = LayerGroup((toys.block(toys.attention(), toys.mlp),), repeats=4)
    params, x, ctx = inputs(segment)
    rules = (("layers", "pipe"), *(rule for rule in RULES if rule[0] != "layers"))
    sharding = Sharding(mesh, rules)
    ctx = ctx.replace(sharding=sharding, key=None)
    placed = jax.device_put(params, sharding.tree(segment.spec(D)))
    rows = jax.device_put(x, sharding.named(("batch", None, None)))
    run = jax.jit(lambda params, x: pipelined(segment, params, x, ctx, mesh, "pipe", 2)[0])
    lowered = run.lower(placed, rows).compile()
    assert jax.tree.leaves(lowered.input_shardings[0])[0].spec[0] == "pipe"
    assert lowered.output_shardings.spec == PartitionSpec("data")
    text = lowered.as_text()
    assert "collective-permute" in text
    expected, _, _ = jax.jit(lambda p, x: segment(p, x, ctx.replace(sharding=None), None))(params, x)
    toys.close(lowered(placed, rows), expected)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"axis": "pip"}, "pipeline axis 'pip' is no axis of the mesh; did you mean 'pipe'?"),
        ({"repeats": 6}, "6 repeats do not spread evenly over 4 pipeline stages"),
        ({"microbatches": 3}, "microbatches=3 does not divide the batch of 8 rows"),
        ({"microbatches": 0}, "microbatches=0 does not divide the batch of 8 rows"),
    ],
)
def test_what_does_not_divide_is_named(change, message, mesh):
    segment = dataclasses.replace(tied(), repeats=change.get("repeats", 8))
    params, x, ctx = inputs(segment)
    with pytest.raises(UserError) as error:
        pipelined(segment, params, x, ctx, mesh, change.get("axis", "pipe"), change.get("microbatches", 2))
    assert message in str(error.value)
