"""Layers with something beside them, and layers that ask twice, against loops over their formulas."""

import dataclasses

import jax.numpy as jnp
import numpy as np
import pytest

from lm.core.ctx import Ctx
from lm.core.errors import UserError
from lm.model.block import Block
from lm.model.kv_sources import CrossKV
from lm.model.layers import LayerNorm
from lm.model.masks import Bidirectional
from lm.model.residual import PostNorm, ResiDual
from lm.model.special.branch import Branched
from lm.model.special.convolution import Convolution
from lm.model.special.enhanced_decoder import EnhancedDecoderLayer
from tests import toys
from tests.toys import LENGTH, D

SEGMENTS = np.array([[1, 1, 1, 2, 2, 2, 2, 0]])  # two texts and padding


def rows(**more) -> Ctx:
    return Ctx(rows={"positions": jnp.arange(LENGTH)[None], "segments": jnp.asarray(SEGMENTS)} | more)


@pytest.fixture(scope="module")
def x() -> np.ndarray:
    return np.random.default_rng(1).standard_normal((1, LENGTH, D)).astype(np.float32)


def norm(p, x: np.ndarray) -> np.ndarray:
    return np.asarray(LayerNorm()(p, jnp.asarray(x)))


@pytest.mark.parametrize(("width", "groups"), [(3, 1), (5, 2), (1, D)])
def test_convolution(x, width, groups):
    layer = Convolution(width, groups)
    p = toys.values(layer.spec(D))
    share, w = D // groups, np.asarray(p["w"])
    expected = np.zeros((LENGTH, D))
    for i in range(LENGTH):
        for out in range(D):
            group, total = out // share, np.asarray(p["b"])[out]
            for t in range(width):
                j = i + t - width // 2
                if 0 <= j < LENGTH and SEGMENTS[0, i] == SEGMENTS[0, j]:
                    for c in range(share):
                        total += x[0, j, group * share + c] * w[group, c * width + t, out % share]
            expected[i, out] = np.tanh(total)
    toys.close(layer(p, jnp.asarray(x), rows(), None, {})[0][0], expected)


def test_a_branch_joins_what_the_block_makes(x):
    block, branch = toys.block(toys.attention(), toys.mlp, PostNorm(LayerNorm())), Convolution(3)
    layer = Branched(block, branch, LayerNorm(), before=LayerNorm())
    p = toys.values(layer.spec(D))
    read = LayerNorm()(p["before_branch"], jnp.asarray(x))
    y = block(p, jnp.asarray(x), rows(), None)[0] + branch(p["branch"], read, rows(), None, {})[0]
    toys.close(layer(p, jnp.asarray(x), rows(), None)[0], norm(p["branch_norm"], np.asarray(y)))


def test_a_layer_that_asks_twice(x):
    """Keys and values stay; queries begin with positions, and their stream is what is added to."""
    own = toys.attention(mask=Bidirectional())
    layer = EnhancedDecoderLayer(
        Block(
            (("attention", dataclasses.replace(own, source=CrossKV("context"))), ("mlp", toys.mlp)),
            PostNorm(LayerNorm()),
        )
    )
    p = toys.values(layer.spec(D))
    table = np.random.default_rng(2).standard_normal((5, D)).astype(np.float32)  # the last row serves the rest
    attention = {name: np.asarray(p["attention"][name]["w"]) for name in "qkvo"}

    def heads(y: np.ndarray, name: str) -> np.ndarray:
        return (y @ attention[name]).reshape(len(y), toys.HEADS, toys.SIZE)

    k, v, queries = heads(x[0], "k"), heads(x[0], "v"), x[0] + table[np.minimum(np.arange(LENGTH), 4)]
    for _ in range(2):
        q, read = heads(queries, "q"), np.zeros((LENGTH, toys.HEADS, toys.SIZE))
        for i in range(LENGTH):
            seen = np.flatnonzero(SEGMENTS[0] == SEGMENTS[0, i])
            for h in range(toys.HEADS):
                scores = np.array([q[i, h] @ k[j, h] for j in seen]) / np.sqrt(toys.SIZE)
                weights = np.exp(scores) / np.exp(scores).sum()
                read[i, h] = sum(weight * v[j, h] for weight, j in zip(weights, seen, strict=True))
        queries = norm(p["attention_norm"], queries + read.reshape(LENGTH, D) @ attention["o"])
        hidden = toys.mlp(p["mlp"], jnp.asarray(queries), Ctx(), None, {})[0]
        queries = norm(p["mlp_norm"], queries + np.asarray(hidden))
    ctx = rows().replace(shared={"absolute": jnp.asarray(table)})
    toys.close(layer(p, jnp.asarray(x), ctx, None)[0][0], queries, atol=1e-4)


def test_mistakes_are_named(x):
    with pytest.raises(UserError, match="width=4 has no middle: give an odd width"):
        Convolution(4)
    with pytest.raises(UserError, match="groups=3 of a convolution do not divide the width 8"):
        Convolution(3, 3).spec(D)
    with pytest.raises(UserError, match="ResiDual carries two"):
        Branched(toys.block(toys.attention(), toys.mlp, ResiDual(LayerNorm())), Convolution(3))
    layer = EnhancedDecoderLayer(toys.block(toys.attention(source=CrossKV("context"))))
    with pytest.raises(UserError, match="reads the table 'absolute', which its stack lacks; did you mean 'absolut'"):
        layer(toys.values(layer.spec(D)), jnp.asarray(x), rows().replace(shared={"absolut": jnp.zeros((4, D))}), None)


def test_a_part_that_is_no_sub_layer_is_named():
    with pytest.raises(UserError, match=r"part 'mlp' of a layer is a LayerNorm, which is no sub-layer: give it spec"):
        Block((("mlp", LayerNorm()),), PostNorm(LayerNorm()))
