"""A layer group spread over four stages equals the group on one device."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, Mesh, PartitionSpec
from ml_collections.config_dict import ConfigDict

from lm.core.component import with_knobs
from lm.core.ctx import Ctx, Execution
from lm.core.errors import UserError
from lm.core.mesh import Sharding
from lm.core.rules import with_own
from lm.model.block import Block
from lm.model.layers import LayerNorm
from lm.model.moe.dispatch import Capacity
from lm.model.moe.top_k import TopK
from lm.model.residual import ResiDual
from lm.model.stack import LayerGroup
from lm.model.transformer import LanguageModel
from lm.parallel.pipeline import Pipelined
from lm.train.config import default
from lm.train.parallel import execution_of, sharding_of
from lm.zoo.gpt2 import gpt2
from lm.zoo.t5 import t5
from tests import toys
from tests.toys import D

ROWS, LENGTH = 8, 4


def sharding() -> Sharding:
    """Four stages by two, the rules being the usual ones but for the axis of the stages, which has another name."""
    devices = np.asarray(jax.devices()).reshape(4, 2)
    mesh = Mesh(devices, ("pipe", "data"), axis_types=(AxisType.Auto,) * 2)
    return Sharding(mesh, with_own((("layers", "pipe"),)))


def staged(ctx: Ctx, microbatches: int, axis: str = "pipe") -> Ctx:
    return ctx.replace(sharding=sharding(), execution=Execution(walk=Pipelined(microbatches, axis=axis)))


def two_streams_with_experts() -> LayerGroup:
    """A carry of two arrays, dropout, and router statistics that depend on padding; two blocks in the pattern."""
    wiring = ResiDual(LayerNorm(), dropout=0.25)
    biased = toys.attention(bias=(toys.BucketedBias(buckets=6, max_distance=7),))
    routed = toys.experts(TopK(k=2, init=toys.WIDE), Capacity(1.0))
    return LayerGroup((Block((("attention", biased),), wiring), Block((("experts", routed),), wiring)), repeats=4)


def tied() -> LayerGroup:
    return LayerGroup((Block((("attention", toys.attention(dropout=0.25)),), toys.pre),), repeats=8, tied=True)


def inputs(group: LayerGroup) -> tuple:
    x = jax.random.normal(jax.random.key(0), (ROWS, LENGTH, D))
    rows = {
        "positions": jnp.broadcast_to(jnp.arange(LENGTH), (ROWS, LENGTH)),
        "segments": jnp.asarray(np.arange(LENGTH) < 2 + np.arange(ROWS)[:, None] % 3, jnp.int32),
    }
    shared = {"relative_bias": jax.random.normal(jax.random.key(1), (6, toys.HEADS))}
    return toys.values(group.spec(D)), x, Ctx(rows=rows, shared=shared, key=jax.random.key(2))


@functools.partial(jax.jit, static_argnums=0)
def value_and_grads(group, params, x, ctx):
    """Value, gradients (parameters, inputs, shared values) and statistics of a layer group."""

    def loss(params, x, shared):
        wiring = group.pattern[0].residual
        carry, _, aux = group(params, wiring.enter(x), ctx.replace(shared=shared), None, 3)
        return jnp.square(wiring.leave(carry, jnp.tanh)).mean(), aux

    return jax.value_and_grad(loss, argnums=(0, 1, 2), has_aux=True)(params, x, ctx.shared)


@pytest.mark.parametrize(("make", "microbatches"), [(two_streams_with_experts, 4), (tied, 2)])
def test_stages_compute_what_one_device_does(make, microbatches):
    group = make()
    params, x, ctx = inputs(group)
    if group.tied:
        ctx = ctx.replace(rows=ctx.rows | {"row": jnp.arange(ROWS) + 100})
    expected = value_and_grads(group, params, x, ctx)
    toys.close(value_and_grads(group, params, x, staged(ctx, microbatches)), expected)
    assert all(np.abs(g).max() > 0 for g in jax.tree.leaves(expected[1][0]))
    if not group.tied:
        assert expected[0][1]["1"]["experts"]["router"].dropped.sum() > 0


def test_parameters_stay_on_their_stages_and_rows_on_their_devices():
    """Beside the pipeline's axis, the rules of ctx go on sharding rows over the other one."""
    group = LayerGroup((toys.block(toys.attention(), toys.mlp),), repeats=4)
    params, x, ctx = inputs(group)
    ctx = ctx.replace(key=None)
    placed = jax.device_put(params, sharding().tree(group.spec(D)))
    rows = jax.device_put(x, sharding().named(("batch", None, None)))
    run = jax.jit(lambda params, x: group(params, x, staged(ctx, 2), None)[0])
    lowered = run.lower(placed, rows).compile()
    assert jax.tree.leaves(lowered.input_shardings[0])[0].spec[0] == "pipe"
    assert lowered.output_shardings.spec == PartitionSpec("data")
    assert "collective-permute" in lowered.as_text()
    expected, _, _ = jax.jit(lambda p, x: group(p, x, ctx, None))(params, x)
    toys.close(lowered(placed, rows), expected)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"repeats": 6}, "6 repeats of a layer group do not spread evenly over 4 pipeline stages"),
        ({"microbatches": 3}, "3 microbatches of a pipeline do not divide 8 rows"),
        ({"caches": [None] * 8}, "a pipeline has no caches"),
    ],
)
def test_what_a_pipeline_cannot_do_is_named(change, message):
    group = dataclasses.replace(tied(), repeats=change.get("repeats", 8))
    params, x, ctx = inputs(group)
    with pytest.raises(UserError, match=message):
        group(params, x, staged(ctx, change.get("microbatches", 2)), change.get("caches"))


def config(**parallel: int | str) -> ConfigDict:
    c = default()
    c.mesh.data, c.data.batch_size = -1, 8
    c.parallel.update(parallel)
    return c


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"pipeline": 3}, r"^mesh stage=3, data=-1 does not divide over the 8 devices here"),
        ({"pipeline": 4}, r"^2 repeats of a layer group do not spread evenly over 4 pipeline stages: take a number of"),
        ({"pipeline": 2, "microbatches": 4}, r"batch_size=8 in 1 part.* into 4 microbatches .* a multiple of 16$"),
        ({"pipeline": 2, "unroll": True}, r"^config.parallel.pipeline=2 and config.train.unroll are two ways"),
        (
            {"pipeline": 2, "chunks": 2},
            r"^2 repeats of a layer group .* 2 pipeline stages of 2 chunks each: take a number",
        ),
        (
            {"pipeline": 2, "chunks": 2, "layers": 4, "microbatches": 1},
            r"^1 microbatches cannot go round 2 pipeline stages 2 times: take a multiple of 2, or one chunk a stage$",
        ),
        ({"pipeline": 2, "layers": 1}, r"^config.parallel.pipeline=2: no layers of this model repeat"),
        ({"pipeline": 2, "stage": 2}, r"^config.mesh.stage is the pipeline's: set config.parallel.pipeline=2 instead$"),
    ],
)
def test_a_config_that_cannot_be_pipelined(change, message):
    c = config(**{k: v for k, v in change.items() if k in ("pipeline", "microbatches", "chunks")})
    c.train.unroll = change.get("unroll", False)
    if "stage" in change:
        with c.unlocked():
            c.mesh.stage = change["stage"]
    model = gpt2(layers=change.get("layers", 2), d_model=D, heads=toys.HEADS, vocab=toys.VOCAB, context=LENGTH)
    with pytest.raises(UserError, match=message):
        sharding_of(c), execution_of(c, model)


def two_groups() -> LanguageModel:
    model = toys.language_model([toys.local] * 2)
    segments = (*model.body.stack.segments, LayerGroup((toys.everywhere,), repeats=2))
    return with_knobs(model, lambda name, value: segments if name == "segments" else value)


@pytest.mark.parametrize(
    ("model", "has"),
    [
        (lambda: t5(layers=2, d_model=D, heads=2, d_ff=8, vocab=toys.VOCAB), "EncoderDecoder has 2 groups of layers"),
        (two_groups, "LanguageModel has 2 groups of layers"),
    ],
)
def test_models_that_alternate_no_passes(model, has):
    c = config(pipeline=2, schedule="1f1b")
    with pytest.raises(UserError, match=rf"^config.parallel.schedule='1f1b' takes models of one tower .* this {has}"):
        execution_of(c, model())
    c.parallel.schedule = "gpipe"
    assert execution_of(c, model()).walk == Pipelined(2)
