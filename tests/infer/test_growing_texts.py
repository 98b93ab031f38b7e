"""Models that rotate by the length of the text: a row generates what it would alone, past every such length."""

import functools
from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lm.core.errors import UserError
from lm.infer.generate import Generator
from lm.infer.sampling import Sampler
from lm.model.kv_sources import SegmentMemory
from lm.model.rotary import DynamicScaling, LongScaling, Rotary
from tests import toys

GREEDY, NEW, ORIGINAL = Sampler(temperature=0), 8, 10
LONG = LongScaling((1.0, 1.3), (2.0, 7.0), ORIGINAL, 1.2)
LATER = LongScaling((1.0, 1.5), (3.0, 0.5), ORIGINAL + 3)
SCALINGS = {
    "read anew": (LONG, LONG),
    "twice": (LONG, LATER),
    "kept": (LongScaling((1.0, 1.3), (2.0, 7.0), ORIGINAL, reread=False), DynamicScaling(4.0, ORIGINAL)),
}
prompts = st.lists(
    st.lists(st.integers(0, toys.VOCAB - 1), min_size=1, max_size=16).map(np.array), min_size=2, max_size=2
)


@functools.cache
def generator(name: str) -> tuple:
    rotaries = [Rotary(theta=100.0, scaling=scaling) for scaling in SCALINGS[name]]
    model = toys.language_model([toys.block(toys.attention(kv_heads=1, rotary=rotary)) for rotary in rotaries])
    params = toys.values(model.spec())
    return model, params, Generator(model, params)


def read_whole(model: Any, params: Any, text: np.ndarray) -> int:
    """The best token after a text, by one call that reads it alone."""
    rows = np.pad(text, (0, 24 - len(text)))[None]  # of one length: compiled once
    seen = (np.arange(24) < len(text)).astype(np.int32)[None]
    logits = toys.forward(model, params, {"tokens": jnp.asarray(rows), "segments": jnp.asarray(seen)})[0]
    return int(logits[0, len(text) - 1].argmax())


@pytest.mark.parametrize("name", ["read anew", "twice"])
def test_what_is_read_anew_is_as_without_a_cache(name):
    model, params, generate = generator(name)
    texts = [np.arange(n) % toys.VOCAB for n in (3, ORIGINAL - 1, ORIGINAL, ORIGINAL + 1, 16)]
    for text, found in zip(texts, generate(texts, max_new=NEW, sampler=GREEDY), strict=True):
        for i, token in enumerate(found):
            assert token == read_whole(model, params, np.concatenate([text, found[:i]])), (len(text), i)


@pytest.mark.parametrize("name", [pytest.param("read anew", marks=pytest.mark.slow), "kept"])
@settings(max_examples=10, deadline=None)
@given(texts=prompts, seed=st.integers(0, 3))
def test_a_row_never_depends_on_its_neighbours(name, texts, seed):
    generate = generator(name)[2]
    together = generate(texts, max_new=NEW, seed=seed)
    for row, text in enumerate(texts):
        [alone] = generate([text], max_new=NEW, seed=seed, first_row=row)
        np.testing.assert_array_equal(alone, together[row])


def test_texts_that_are_read_anew_compile_nothing_for_each_token():
    generate = generator("read anew")[2]
    texts = [np.arange(n) % toys.VOCAB for n in (4, 7)]
    generate(texts, max_new=NEW)
    before = generate._reread._cache_size(), generate._decode._cache_size()
    generate([text + 1 for text in texts[::-1]], max_new=NEW, seed=1)
    assert (generate._reread._cache_size(), generate._decode._cache_size()) == before


def test_a_segment_memory_cannot_be_read_anew():
    model = toys.language_model([toys.block(toys.attention(rotary=Rotary(scaling=LONG), source=SegmentMemory(4)))])
    with pytest.raises(UserError, match="set reread=False"):
        Generator(model, toys.values(model.spec()))


@pytest.mark.parametrize("name", SCALINGS)
def test_a_document_in_a_packed_row_is_as_alone(name):
    """In training and evaluation too: each of a row's documents is as long as itself."""
    model, params, _ = generator(name)
    lengths = (4, ORIGINAL + 5, 5)
    texts = [toys.tokens(1, n, seed=n) for n in lengths]
    packed = {
        "tokens": jnp.concatenate(texts, axis=1),
        "positions": jnp.concatenate([jnp.arange(n) for n in lengths])[None],
        "segments": jnp.repeat(jnp.array([1, 2, 0]), jnp.array(lengths))[None],
    }
    whole, start = toys.forward(model, params, packed)[0], 0
    for text, n in zip(texts, lengths, strict=True):
        toys.close(whole[:, start : start + n], toys.forward(model, params, {"tokens": text})[0], atol=2e-5)
        start += n


def test_a_prompt_in_pieces_is_told_how_long_it_is():
    model, params, _ = generator("read anew")
    n = ORIGINAL + 4
    text = toys.tokens(2, n)
    whole = toys.forward(model, params, {"tokens": text})[0]
    batch = {"tokens": text, "positions": jnp.tile(jnp.arange(n), (2, 1)), "length": jnp.full((2, n), n)}
    cache, found = model.cache(toys.shape(2, n)), []
    for piece in (slice(0, 7), slice(7, n)):
        logits, cache, _ = toys.forward(model, params, {k: v[:, piece] for k, v in batch.items()}, cache=cache)
        found.append(logits)
    toys.close(jnp.concatenate(found, axis=1), whole, atol=2e-5)
