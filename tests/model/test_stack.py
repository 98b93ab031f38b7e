"""Stacks: patterns found, layers located, scans equal to loops over separate layers, one set of parameters for many."""

import dataclasses
import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lm.core.ctx import Ctx, Execution
from lm.core.param import count
from lm.core.walk import Unrolled
from lm.model.block import Parallel
from lm.model.layers import LayerNorm, RMSNorm
from lm.model.residual import Plain, PostNorm, PreNorm, ResiDual, Sandwich
from lm.model.stack import Stack
from tests import toys
from tests.toys import D, everywhere, local

KINDS = [toys.block(toys.attention(), toys.GatedMLP(n)) for n in (1, 2, 3)]


@pytest.mark.parametrize(
    ("blocks", "segments"),
    [
        (([local] * 5 + [everywhere]) * 10 + [local] * 2, [(6, 10), (2, 1)]),
        ([local] + [everywhere] * 59, [(1, 1), (1, 59)]),
        ([local, everywhere] * 3, [(2, 3)]),
        ([local] * 4, [(1, 4)]),
        ([local], [(1, 1)]),
        ([local, everywhere], [(2, 1)]),
    ],
)
def test_patterns_are_found(blocks, segments):
    assert [(len(s.pattern), s.repeats) for s in Stack.of(blocks).segments] == segments


@given(st.lists(st.sampled_from(KINDS), min_size=1, max_size=14))
def test_a_stack_holds_its_blocks_in_order_and_traces_as_few_as_it_can(blocks):
    stack, n = Stack.of(blocks), len(blocks)
    assert stack.blocks() == blocks
    assert stack.layers == n
    places = [stack.locate(i) for i in range(n)]
    walk = [
        (s, r, i)
        for s, segment in enumerate(stack.segments)
        for r, i in itertools.product(range(segment.repeats), range(len(segment.pattern)))
    ]
    assert places == walk
    assert [stack.segments[p.segment].pattern[p.position] for p in places] == blocks
    traced = [
        n - (repeats - 1) * period
        for start, period, repeats in itertools.product(range(n), range(1, n + 1), range(1, n + 1))
        if blocks[start : start + period] * repeats == blocks[start : start + period * repeats]
    ]
    assert sum(len(s.pattern) for s in stack.segments) == min(traced)
    with pytest.raises(IndexError, match="past the last"):
        stack.locate(n)


def one_by_one(stack: Stack, p, x, ctx: Ctx):
    """The stack as a loop over separate layers, each with its own parameters."""
    residual = stack.blocks()[0].residual
    carry = residual.enter(x)
    for i, block in enumerate(stack.blocks()):
        place = stack.locate(i)
        own = jax.tree.map(lambda a, place=place: a[place.repeat], p[str(place.segment)][str(place.position)])
        carry, _, _ = block(own, carry, ctx.replace(layer=i), None)
    return residual.leave(carry, lambda y: stack.norm(p["norm"], y))


@pytest.mark.parametrize("name", ["windows", "wirings", "two_streams"])
def test_a_stack_equals_a_loop_over_separate_layers(name):
    stack = toys.DECODERS[name]().body.stack
    p = toys.values(stack.spec(D))
    x = jax.random.normal(jax.random.key(2), (2, toys.LENGTH, D))
    ctx = Ctx(rows={"positions": jnp.broadcast_to(jnp.arange(toys.LENGTH), (2, toys.LENGTH))}, key=jax.random.key(3))
    toys.close(jax.jit(lambda p: stack(p, x, ctx, None)[0])(p), jax.jit(lambda p: one_by_one(stack, p, x, ctx))(p))


@functools.partial(jax.jit, static_argnums=0, static_argnames="execution")
def loss_and_grads(model, params, batch, key=None, *, execution=Execution()):
    def loss(params):
        ctx = Ctx(key=key, execution=execution)
        x, _, out = model.hidden(params, batch, ctx)
        return jnp.square(model.logits(params, x, ctx)).mean(), out

    return jax.value_and_grad(loss, has_aux=True)(params)


@pytest.mark.parametrize(
    ("model", "runs"),
    [
        (toys.routed(), [Execution(walk=Unrolled()), Execution("full")]),
        (toys.learned_positions(), [Execution("dots", Unrolled())]),
    ],
    ids=["experts", "decoder"],
)
def test_how_a_model_runs_does_not_change_it(model, runs):
    params, key = toys.values(model.spec()), jax.random.key(5)
    batch = {"tokens": toys.tokens(2), "segments": jnp.array([[1] * 8, [1] * 3 + [2] * 4 + [0]])}
    expected = loss_and_grads(model, params, batch, key)
    assert all(np.abs(g).max() > 0 for path, g in toys.flatten(expected[1]) if not path.endswith("balance"))
    for run in runs:
        toys.close(loss_and_grads(model, params, batch, key, execution=run), expected)


def test_tied_layers_hold_one_set_and_sum_its_gradients():
    tied = toys.shared_layers()
    stack = tied.body.stack
    free = dataclasses.replace(
        tied,
        body=dataclasses.replace(
            tied.body, stack=dataclasses.replace(stack, segments=Stack.of(stack.blocks()).segments)
        ),
    )
    one = toys.language_model(stack.blocks()[:1], tied.body.embed.position, norm=None)
    assert count(tied.spec()) == count(one.spec()) < count(free.spec())

    params, batch = toys.values(tied.spec()), {"tokens": toys.tokens(2)}
    copies = jax.tree.map(lambda x: jnp.stack([x] * 2), params["body"]["stack"])
    copied = params | {"body": params["body"] | {"stack": copies}}
    (value, _), grads = loss_and_grads(tied, params, batch)
    (expected, _), separate = loss_and_grads(free, copied, batch)
    toys.close(value, expected)
    summed = jax.tree.map(lambda g: g.sum(0), separate["body"]["stack"])
    toys.close(grads, separate | {"body": separate["body"] | {"stack": summed}})


# ---------------------------------------------------------------------------------------------------------------------
# Residual wirings as formulas, with f(x) = 2 x + 1


def normed(x, w, b=0.0):
    x = np.asarray(x)
    return (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + 1e-5) * w + b


def f(x):
    return 2 * x + 1


FORMULAS = {
    "plain": (Plain(), lambda x, p: x + f(x)),
    "pre": (PreNorm(LayerNorm()), lambda x, p: x + f(normed(x, p["w"], p["b"]))),
    "post": (PostNorm(LayerNorm()), lambda x, p: normed(x + f(x), p["w"], p["b"])),
    "deep": (PostNorm(LayerNorm(), alpha=3.0), lambda x, p: normed(3 * x + f(x), p["w"], p["b"])),
    "sandwich": (
        Sandwich(LayerNorm(bias=False), LayerNorm()),
        lambda x, p: x + normed(f(normed(x, p["before"]["w"])), p["after"]["w"], p["after"]["b"]),
    ),
}


@pytest.mark.parametrize("name", FORMULAS)
def test_wirings_compute_their_formulas(name):
    wiring, formula = FORMULAS[name]
    p, x = jax.tree.map(np.asarray, toys.values(wiring.spec(D))), np.random.default_rng(4).standard_normal((1, 3, D))
    carry, cache = wiring(p, wiring.enter(jnp.asarray(x, jnp.float32)), lambda y: (f(y), "slot"), Ctx())
    assert cache == "slot"
    toys.close(wiring.leave(carry, lambda y: -y), -formula(x, p))


def test_two_streams_compute_their_formula():
    wiring = ResiDual(LayerNorm())
    p = jax.tree.map(np.asarray, toys.values(wiring.spec(D)))
    x = np.random.default_rng(4).standard_normal((1, 3, D))
    carry, post, dual = wiring.enter(jnp.asarray(x, jnp.float32)), x, x
    for _ in range(2):
        carry, _ = wiring(p, carry, lambda y: (f(y), None), Ctx())
        post, dual = normed(post + f(post), p["w"], p["b"]), dual + f(post)
    toys.close(wiring.leave(carry, lambda y: -y), post - dual)


def test_parallel_parts_read_the_same_input():
    parts = (("one", toys.mlp), ("two", toys.gated))
    x = np.random.default_rng(5).standard_normal((1, 3, D)).astype(np.float32)
    for norm in (None, RMSNorm()):
        both = Parallel(parts, norm)
        p = toys.values(both.spec(D))
        inputs = {n: norm(p[f"{n}_norm"], x) if norm else x for n, _ in parts}
        expected = sum(part(p[n], inputs[n], Ctx(), None, {})[0] for n, part in parts)
        toys.close(both(p, x, Ctx(), None, {})[0], expected)
