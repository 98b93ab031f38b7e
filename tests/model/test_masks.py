"""Masks against their definitions, read token by token, and the bands that let the kernel skip keys."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lm.core.errors import UserError
from lm.core.rows import Tokens, visible
from lm.inspect.cost import flops
from lm.kernels.attention.blocked import blocked
from lm.kernels.attention.reference import reference
from lm.kernels.attention.spec import AttentionSpec
from lm.kernels.place import Place
from lm.model.masks import (
    Bidirectional,
    Causal,
    Chunked,
    Dilated,
    Either,
    Except,
    GlobalMask,
    Permuted,
    Prefix,
    Strided,
    Window,
)

CPU = Place("cpu")

windows = st.builds(Window, st.integers(1, 9), st.integers(1, 5))
masks = st.one_of(
    st.just(Bidirectional()),
    st.just(GlobalMask()),
    st.builds(lambda *parts: Either(parts), windows, windows | st.just(GlobalMask())),
    st.just(Causal()),
    st.just(Prefix()),
    windows,
    st.builds(Strided, st.integers(1, 5)),
    st.builds(Dilated, st.integers(1, 3), st.integers(1, 4), st.booleans()),
    st.builds(Chunked, st.integers(1, 5), st.booleans()),
)


def sees(mask, q: dict, k: dict) -> bool:
    """Whether the query token sees the key token."""
    if q["segment"] != k["segment"]:
        return False
    if isinstance(mask, Either):
        return any(sees(part, q, k) for part in mask.parts)
    if isinstance(mask, Bidirectional):
        return True
    if isinstance(mask, GlobalMask):
        return k["anchor"]
    if isinstance(mask, Window):
        return q["position"] - mask.left < k["position"] < q["position"] + mask.right
    behind = q["position"] - k["position"]
    if isinstance(mask, Strided):
        return behind in range(mask.stride) or behind in range(0, 100, mask.stride)
    if isinstance(mask, Dilated):
        steps = range(0 if mask.causal else -mask.width, mask.width + 1)
        return behind in [step * mask.dilation for step in steps]
    if isinstance(mask, Chunked):
        first = q["position"] - q["position"] % mask.size
        return k["position"] in range(first, q["position"] + 1 if mask.causal else first + mask.size)
    return k["position"] <= q["position"] or (isinstance(mask, Prefix) and k["prefix"])


@given(masks | st.builds(Permuted, st.booleans()) | st.builds(Except, masks, st.just(GlobalMask())))
def test_causal_masks_show_nothing_ahead(mask):
    index = jnp.arange(12)[None]
    tokens = Tokens(index, globals=jnp.ones_like(index))
    allowed = jnp.broadcast_to(mask.allowed(tokens, tokens), (1, 12, 12))[0]
    if mask.causal:
        assert not jnp.triu(allowed, 1).any()
    elif not isinstance(mask, Except) and mask != Chunked(1, False):
        assert jnp.triu(allowed, 1).any()


@st.composite
def rows(draw, length: int = 12) -> dict[str, np.ndarray]:
    """One packed row: documents of any length, padding at the end, each with a prefix."""
    cuts = sorted(draw(st.lists(st.integers(0, length), max_size=4)))
    segments = np.searchsorted(cuts, np.arange(length), side="right") + 1
    segments[length - draw(st.integers(0, 4)) :] = 0
    starts = np.r_[True, segments[1:] != segments[:-1]]
    positions = np.arange(length) - np.maximum.accumulate(np.where(starts, np.arange(length), 0))
    anchors = np.array(draw(st.lists(st.booleans(), min_size=length, max_size=length)), np.int32)
    prefix = positions < draw(st.integers(0, 4))
    return {"positions": positions, "segments": segments, "prefix": prefix, "globals": anchors}


def as_tokens(row: dict) -> Tokens:
    return Tokens(**{name: jnp.asarray(values)[None] for name, values in row.items()})


@given(masks, rows())
def test_masks_mean_what_they_say(mask, row):
    tokens = as_tokens(row)
    names = ("position", "segment", "prefix", "anchor")
    one = [dict(zip(names, token, strict=True)) for token in zip(*row.values(), strict=True)]
    expected = [[sees(mask, q, k) for k in one] for q in one]
    found = np.asarray(visible(mask, tokens, tokens))
    assert np.broadcast_to(found[0], (len(one), len(one))).tolist() == expected


@given(masks, rows())
def test_nothing_is_visible_outside_the_band(mask, row):
    tokens = as_tokens(row)
    low, high = mask.band()
    found = np.argwhere(np.broadcast_to(visible(mask, tokens, tokens)[0], (12, 12)))
    ahead = found[:, 1] - found[:, 0]
    assert low is None or (ahead >= low).all()
    assert high is None or (ahead <= high).all()


def test_tokens_without_segments_belong_to_segment_one():
    positions = jnp.arange(3)[None]
    bare, packed = Tokens(positions), Tokens(positions, jnp.array([[1, 2, 0]]))
    assert visible(Bidirectional(), bare, packed)[0].tolist() == [[True, False, False]] * 3
    assert visible(Bidirectional(), packed, bare)[0].tolist() == [[True] * 3, [False] * 3, [False] * 3]


@functools.partial(jax.jit, static_argnums=(0, 1, 2, 3))
def both(mask, kv_heads, block, most, tokens):
    keys = jax.random.split(jax.random.key(0), 3)
    q, k, v = (jax.random.normal(key, (1, h, 12, 3)) for key, h in zip(keys, (4, kv_heads, kv_heads), strict=True))
    asked = AttentionSpec(mask, 0.5, aligned=True), tokens, tokens
    skipping = blocked(q, k, v, *asked, place=CPU, block=block, most=most)
    return skipping, reference(q, k, v, *asked, place=CPU)


@settings(max_examples=40)
@given(
    st.sampled_from([(Causal(), 2, 1, 3), (Window(3), 1, 5, 12), (Window(2, 3), 4, 7, 12), (Prefix(), 1, 6, 1)]), rows()
)
def test_blocked_attention_equals_the_reference(shape, row):
    tokens = as_tokens(row)
    if shape[0] == Causal():  # without segments
        tokens = Tokens(jnp.arange(12)[None])
    skipping, plain = both(*shape, tokens)
    np.testing.assert_allclose(skipping, plain, atol=1e-5)


def test_blocked_attention_skips_hidden_keys():
    x = jnp.ones((1, 1, 64, 2))
    tokens = Tokens(jnp.arange(64)[None])

    def cost(mask, backward):
        def attend(x):
            spec = AttentionSpec(mask, 1.0, aligned=True)
            return blocked(x, x, x, spec, tokens, tokens, place=CPU, block=8).sum()

        return flops(jax.grad(attend) if backward else attend, x)

    for backward in (False, True):
        assert cost(Window(8, 1), backward) < cost(Causal(), backward) < cost(Bidirectional(), backward)


@settings(max_examples=15)
@given(
    st.sampled_from([(Causal(), 2, 2, 3), (Window(3), 1, 5, 12), (Window(2, 3), 4, 7, 12), (Prefix(), 1, 6, 1)]), rows()
)
def test_blocked_attention_has_the_gradient_of_the_reference(shape, row):
    """Of queries, keys and values, with two query heads to a key head, padding, and values wider than keys."""
    mask, _, block, most = shape
    tokens = as_tokens(row)
    sizes = {"q": (1, 4, 12, 3), "k": (1, 2, 12, 3), "v": (1, 2, 12, 5)}
    qkv = [jax.random.normal(jax.random.key(i), size) for i, size in enumerate(sizes.values())]
    asked = AttentionSpec(mask, 0.5, aligned=True), tokens, tokens
    target = jax.random.normal(jax.random.key(9), (1, 4, 12, 5))

    def gradient(attend, **own):
        return jax.grad(lambda qkv: (attend(*qkv, *asked, place=CPU, **own) * target).sum())(qkv)

    for ours, theirs in zip(gradient(blocked, block=block, most=most), gradient(reference), strict=True):
        np.testing.assert_allclose(ours, theirs, atol=2e-5)


@pytest.mark.parametrize("make", [lambda: Strided(0), lambda: Dilated(0, 1), lambda: Dilated(1, 0), lambda: Chunked(0)])
def test_masks_that_would_hide_everything_are_refused(make):
    with pytest.raises(UserError, match="at least 1"):
        make()


@pytest.mark.parametrize("sides", [(0, 1), (3, 0)])
def test_a_window_includes_the_query(sides):
    with pytest.raises(UserError, match="the query itself"):
        Window(*sides)
