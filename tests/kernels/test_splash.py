"""Splash attention as the interpreter of Pallas runs it, against the reference; its masks and segments apart, against
their definition. `tests/tpu` compiles it."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lm.core.rows import visible
from lm.kernels.attention import splash
from lm.kernels.attention.select import KERNELS, select
from lm.kernels.attention.spec import AttentionSpec
from lm.kernels.place import Place
from lm.model.masks import (
    Bidirectional,
    Causal,
    Chunked,
    Dilated,
    Either,
    GlobalMask,
    Permuted,
    Prefix,
    Strided,
    Window,
)
from tests.kernels.attentions import agrees, asked, texts

EVEN = AttentionSpec(Causal(), 0.5, aligned=True)
MASKS = (
    Bidirectional(),
    Causal(),
    Window(5, 3),
    Prefix(),
    Strided(3),
    Dilated(2, 3, False),
    Chunked(4),
    Chunked(3, False),
    Either((Window(2), GlobalMask())),
    Either((Causal(), Prefix(), Window(1, 4))),
)
TWO = texts(150, [90], padding=9)  # more than a block, and no multiple of one


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch):
    monkeypatch.setattr(splash, "BLOCKS", (128,))


@pytest.mark.parametrize(
    ("changes", "q", "k"),
    [
        ({}, TWO, TWO),
        ({"cap": 2.0, "sinks": True}, texts(1, []), texts(1, [])),
        (
            {"mask": Window(9, 4), "cap": 2.0, "sinks": True, "extra": 5},
            TWO,
            jax.tree.map(lambda x: jnp.concatenate([x, x[:, 80:85]], axis=1), TWO),
        ),
        ({"mask": Prefix()}, TWO, TWO),
        ({"mask": Chunked(32)}, TWO, TWO),
        ({"mask": Bidirectional(), "aligned": False}, texts(20, [9]), texts(70, [])),  # some queries see nothing
    ],
    ids=["causal", "one token", "extra", "prefix", "chunked", "another text"],
)
def test_it_is_the_reference(changes, q, k):
    agrees(splash.splash, asked(dataclasses.replace(EVEN, **changes), q, k), 2e-5, interpret=True)


def test_half_precision():
    a = asked(EVEN, texts(40, [9]), texts(40, [9]), heads=(4, 2), dtype=jnp.bfloat16)
    agrees(splash.splash, a, 0.02, interpret=True)


@settings(max_examples=40)
@given(st.data(), st.sampled_from(MASKS), st.integers(0, 3))
def test_indices_and_segments_are_the_mask(data, mask, extra):
    """Of keys that come twice, one or the other is seen."""
    cuts = sorted(data.draw(st.lists(st.integers(1, 11), max_size=3)))
    q = texts(12, cuts, data.draw(st.integers(0, 4)))
    k = jax.tree.map(lambda x: jnp.concatenate([x, x[:, :extra]], axis=1), q)
    spec = AttentionSpec(mask, 1.0, aligned=True, extra=extra)
    if extra and mask.separated().pieces:
        return
    of_q, of_k = splash.segments(spec, q, k)
    length, keys = 12 + extra, of_k.shape[1]
    index = splash.IndexMask(mask, 12, extra, keys > length, (12, keys))
    seen = index(np.arange(12)[:, None], np.arange(keys)[None]) & (of_q[0][:, None] == of_k[0])
    counted = np.asarray(seen[:, :length], int)
    counted[:, : keys - length] += np.asarray(seen[:, length:], int)
    expected = np.broadcast_to(visible(mask, q, k, extra)[0], (12, length))
    assert counted.tolist() == expected.astype(int).tolist()


def test_masks_are_asked_for_with_arrays_of_numpy():
    """While a program is traced."""

    @jax.jit
    def traced(x):
        for mask in MASKS:
            block = splash.IndexMask(mask, 12, 0, True, (12, 24))(np.arange(4)[:, None], np.arange(4, 9)[None])
            assert type(block) is np.ndarray and block.shape == (4, 5)
        return x

    traced(1.0)


@pytest.mark.parametrize(
    ("changes", "length", "dtype", "says"),
    [
        ({}, 256, jnp.bfloat16, None),
        ({"probs": True}, 256, jnp.float32, "dropped out or recorded"),
        ({"bias": "pairwise"}, 256, jnp.float32, "no biases"),
        ({"mask": Permuted()}, 256, jnp.float32, "Permuted is no mask of distances"),
        ({"mask": GlobalMask()}, 256, jnp.float32, "do not see themselves"),
        ({"mask": Chunked(4), "extra": 2}, 256, jnp.float32, "do not go together"),
        ({"aligned": False}, 256, jnp.float32, "a cache"),
        ({"aligned": False, "mask": Bidirectional()}, 256, jnp.float32, None),
        ({}, 256, jnp.float16, "not float16"),
        ({}, 100, jnp.float32, "less than a block"),
    ],
)
def test_it_says_what_it_supports(changes, length, dtype, says):
    spec, tpu = dataclasses.replace(EVEN, **changes), Place("tpu")
    q, k = (jax.ShapeDtypeStruct((2, heads, length, 8), dtype) for heads in (4, 2))
    found = splash.supports(spec, q, k, k, tpu)
    assert found is None if says is None else says in found
    assert (select(spec, q, k, k, tpu) is KERNELS["splash"].attend) == (says is None)
