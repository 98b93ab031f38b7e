"""Residual wirings and inner norms against their formulas, token by token."""

import dataclasses
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lm.core.ctx import Ctx
from lm.model.block import Block
from lm.model.layers import LayerNorm, RMSNorm
from lm.model.mlp import MLP
from lm.model.residual import Plain, PostNorm, PreNorm, ResiDual, Sandwich
from lm.model.stack import Stack
from tests import toys
from tests.toys import LENGTH, D

NORM = LayerNorm(1e-2)
ONE, TWO = MLP(6, "tanh"), MLP(5, "relu", inner_norm=RMSNorm(1e-2))


def norm(p: dict, x: np.ndarray) -> np.ndarray:
    return (x - x.mean()) / math.sqrt(x.var() + 1e-2) * p["w"] + p["b"]


def rms(p: dict, x: np.ndarray) -> np.ndarray:
    return x / math.sqrt(float((x * x).mean()) + 1e-2) * p["w"]


def one(p: dict, x: np.ndarray) -> np.ndarray:
    return np.tanh(x @ p["up"]["w"] + p["up"]["b"]) @ p["down"]["w"] + p["down"]["b"]


def two(p: dict, x: np.ndarray) -> np.ndarray:
    """With a norm of the hidden units (sub-LN)."""
    hidden = rms(p["inner_norm"], np.maximum(x @ p["up"]["w"] + p["up"]["b"], 0))
    return hidden @ p["down"]["w"] + p["down"]["b"]


def plain(x, p, end):
    x = x + one(p["one"], x)
    return norm(end, x + two(p["two"], x))


def before(x, p, end):
    x = x + one(p["one"], norm(p["one_norm"], x))
    return norm(end, x + two(p["two"], norm(p["two_norm"], x)))


def before_and_kept(x, p, end):
    y = norm(p["one_norm"], x)
    y = norm(p["two_norm"], y + one(p["one"], y))
    return norm(end, y + two(p["two"], y))


def after(x, p, end, alpha=1.0):
    x = norm(p["one_norm"], alpha * x + one(p["one"], x))
    return norm(end, norm(p["two_norm"], alpha * x + two(p["two"], x)))


def deep(x, p, end):
    return after(x, p, end, 1.7)


def both(x, p, end):
    for name, f in (("one", one), ("two", two)):
        around = p[f"{name}_norm"]
        x = x + norm(around["after"], f(p[name], norm(around["before"], x)))
    return norm(end, x)


def behind(x, p, end):
    for name, f in (("one", one), ("two", two)):
        x = x + norm(p[f"{name}_norm"]["after"], f(p[name], x))
    return norm(end, x)


def dual(x, p, end):
    post, total = x, x
    for name, f in (("one", one), ("two", two)):
        y = f(p[name], post)
        post, total = norm(p[f"{name}_norm"], post + y), total + y
    return post + norm(end, total)


def in_front(x, p, end):
    return before(norm(p["norm"], x), p, end)


WIRINGS = {
    plain: Plain(),
    before: PreNorm(NORM),
    before_and_kept: PreNorm(NORM, normed=True),
    after: PostNorm(NORM),
    deep: PostNorm(NORM, alpha=1.7),
    both: Sandwich(NORM, NORM),
    behind: Sandwich(None, NORM),
    dual: ResiDual(NORM),
    in_front: PreNorm(NORM),
}


@pytest.mark.parametrize("formula", WIRINGS, ids=lambda f: f.__name__)
def test_wiring(formula):
    block = Block((("one", ONE), ("two", TWO)), WIRINGS[formula])
    block = dataclasses.replace(block, norm=NORM) if formula is in_front else block
    stack = Stack.of([block], norm=NORM)
    p = toys.values(stack.spec(D))
    x = np.random.default_rng(2).standard_normal((1, LENGTH, D)).astype(np.float32)
    found, _, _ = stack(p, jnp.asarray(x), Ctx(), None)
    layer = jax.tree.map(lambda w: np.asarray(w[0]), p["0"]["0"])
    end = jax.tree.map(np.asarray, p["norm"])
    toys.close(found[0], np.stack([formula(t, layer, end) for t in x[0]]))
