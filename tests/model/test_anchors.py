"""Attention to a window and to marked tokens, against loops over its formula, and how tokens are marked."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lm.core.ctx import Ctx
from lm.core.errors import UserError
from lm.core.param import put
from lm.inspect.cost import flops
from lm.model.masks import Bidirectional, Causal, Either, Window
from lm.model.special.global_attention import GlobalAttention
from lm.model.special.global_tokens import GlobalBefore, GlobalFirst
from tests import toy_towers, toys
from tests.toys import HEADS, LENGTH, SIZE, D

SEGMENTS, REAL = np.array([1, 1, 1, 1, 1, 2, 2, 0]), 7  # two texts and padding
MARKED = np.array([0, 0, 0, 0, 1, 1, 0, 0])
LAYER = GlobalAttention(
    toys.attention(mask=Window(2, 2), projections=toys.maps(("q", "v"))),
    toys.attention(mask=Bidirectional(), projections=toys.maps(("k",))),
)


@pytest.fixture(scope="module")
def x() -> np.ndarray:
    return np.random.default_rng(1).standard_normal((1, LENGTH, D)).astype(np.float32)


def rows(marked: np.ndarray | None = None) -> dict:
    found = {"positions": jnp.arange(LENGTH)[None], "segments": jnp.asarray(SEGMENTS)[None]}
    return found if marked is None else found | {"global": jnp.asarray(marked)[None]}


@functools.partial(jax.jit, static_argnums=0)
def call(layer, p, x, rows):
    return layer(p, x, Ctx(rows=rows), None, {})[0]


def by_loops(p, x: np.ndarray, marked: np.ndarray) -> np.ndarray:
    y = np.zeros((LENGTH, D))
    for i in range(LENGTH):
        own = p["anchors"] if marked[i] else p

        def heads(name: str, token: np.ndarray, own=own) -> np.ndarray:
            return (token @ np.asarray(own[name]["w"]) + np.asarray(own[name].get("b", 0))).reshape(HEADS, SIZE)

        seen = [
            j
            for j in range(LENGTH)
            if SEGMENTS[i] == SEGMENTS[j] and (marked[i] or marked[j] or abs(i - j) <= 1)  # Window(2, 2): 1 either side
        ]
        read = np.zeros((HEADS, SIZE))
        for h in range(HEADS):
            weights = np.exp([heads("q", x[i])[h] @ heads("k", x[j])[h] / np.sqrt(SIZE) for j in seen])
            for weight, j in zip(weights / weights.sum(), seen, strict=True):
                read[h] += weight * heads("v", x[j])[h]
        y[i] = read.reshape(D) @ np.asarray(own["o"]["w"])
    return y


@pytest.mark.parametrize("most", [None, 2, 5, LENGTH])
@pytest.mark.parametrize("marked", [MARKED, 0 * MARKED], ids=["some", "none"])
def test_marked_tokens_see_and_are_seen_by_all(x, marked, most):
    p, layer = toys.values(LAYER.spec(D)), dataclasses.replace(LAYER, max_global=most)
    found = call(layer, p, x, rows(marked))
    toys.close(found[0, :REAL], by_loops(p, x[0], marked)[:REAL])


def test_only_the_first_marks_count(x):
    p, layer = toys.values(LAYER.spec(D)), dataclasses.replace(LAYER, max_global=1)
    found = call(layer, p, x, rows(MARKED))
    first = np.where(np.arange(LENGTH) == np.flatnonzero(MARKED)[0], 1, 0)
    toys.close(found[0, :REAL], by_loops(p, x[0], first)[:REAL])


def test_few_marks_cost_little():
    """Twice the text costs twice as much, where without a bound it costs four times as much."""

    def cost(length: int, most: int | None) -> float:
        layer = dataclasses.replace(LAYER, max_global=most)
        p, zeros = toys.values(layer.spec(D)), jnp.zeros((1, length), jnp.int32)

        maps = jax.tree.leaves(jax.tree.map(lambda w: 2 * w.size * length, p))  # of the projections
        return flops(
            functools.partial(call, layer), p, jnp.zeros((1, length, D)), {"positions": zeros, "global": zeros}
        ) - sum(maps)

    assert cost(1024, 4) < 2.2 * cost(512, 4)
    assert cost(1024, None) > 3.5 * cost(512, None)
    assert cost(1024, 4) < cost(1024, None) / 4


def test_gradients_with_and_without_a_bound(x):
    p = toys.values(LAYER.spec(D))

    def loss(p, x, most):
        return jnp.square(call(dataclasses.replace(LAYER, max_global=most), p, x, rows(MARKED))[:, :REAL]).sum()

    toys.close(*(dict(zip("px", jax.grad(loss, (0, 1))(p, jnp.asarray(x), m), strict=True)) for m in (None, 3)))


def test_without_marks_there_is_a_window_only(x):
    p = toys.values(LAYER.spec(D))
    toys.close(call(LAYER, p, x, rows())[0], by_loops(p, x[0], 0 * MARKED))


def test_one_output_map_by_a_tie(x):
    p = toys.values(LAYER.spec(D))
    p = put(p, "anchors/o", p["o"])
    one = dataclasses.replace(LAYER.local, mask=Bidirectional(), projections=toys.maps(("k",)))
    toys.close(call(LAYER, p, x, rows(1 + 0 * MARKED)), call(one, p["anchors"], x, rows()))


def test_marks_of_packed_texts():
    tokens = jnp.array([[5, 9, 7, 9, 3, 5, 4, 9, 6], [4, 4, 4, 4, 4, 4, 4, 4, 9]])
    positions = jnp.array([[0, 1, 2, 3, 4, 0, 1, 2, 3], [0, 0, 0, 1, 2, 3, 4, 5, 6]])
    first = GlobalFirst()(tokens, {"positions": positions})
    assert first.tolist() == [[1, 0, 0, 0, 0, 1, 0, 0, 0], [1, 1, 1, 0, 0, 0, 0, 0, 0]]  # padding too, unseen
    before = GlobalBefore(9)(tokens, {"positions": positions})
    assert before.tolist() == [[1, 0, 0, 0, 0, 1, 1, 0, 0], [1, 1, 1, 1, 1, 1, 1, 1, 0]]


def test_rows_of_the_batch_come_before_marks():
    model = toy_towers.windowed_encoder()
    params, tokens = toys.values(model.spec()), toys.tokens(2)
    none = {"tokens": tokens, "global": jnp.zeros_like(tokens)}
    first = {"tokens": tokens, "global": jnp.zeros_like(tokens).at[:, 0].set(1)}
    model_of = jax.jit(model)
    found = [model_of(params, batch) for batch in ({"tokens": tokens}, first, none)]
    toys.close(found[0], found[1])
    assert toys.differ(found[0], found[2])


def test_either_mask():
    both = Either((Causal(), Window(1, 3)))
    assert both.band() == (None, 2)
    assert Either((Window(2), Window(4, 2))).band() == (-3, 1)
    with pytest.raises(UserError, match="no parts"):
        Either(())
