"""Batches whose rows go on from those of the batch before."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from lm.core.errors import UserError
from lm.data.batches import Batches
from lm.data.cache import TokenCache
from lm.data.eval_batches import EvalBatches
from lm.data.packing import ConcatenatedRows, RunningRows
from lm.objectives.examples.next_token import NextTokens


def cache_of(*lengths):
    """Documents of these lengths in which token number i is i, so that a token tells its place."""
    tokens = np.arange(sum(lengths), dtype=np.uint16)
    offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
    return TokenCache(Path("nowhere"), (tokens,), offsets, bytes=len(tokens), dropped=0, digest=str(lengths))


def stream(cache, length, batch_size, seed=0, **knobs):
    return Batches(((cache, 1.0),), length, batch_size, seed, NextTokens(), packing="stream", **knobs)


CORPORA = st.lists(st.integers(1, 30), min_size=1, max_size=12).map(lambda lengths: cache_of(*lengths))


def joined(batches, lane, name):
    return np.concatenate([batch[name][lane] for batch in batches])


@given(CORPORA, st.integers(1, 9), st.integers(1, 4), st.integers(0, 2**40))
def test_a_row_goes_on_from_the_batch_before(cache, length, batch_size, seed):
    assume(cache.size // length >= batch_size)
    batches = stream(cache, length, batch_size, seed)
    steps = batches.rows_per_epoch[0] // batch_size
    starts = cache.offsets[:-1]
    for epoch in range(2):
        found = [batches.batch(epoch * steps + k) for k in range(steps)]
        assert [b["reset"].tolist() for b in found] == [[int(k == 0)] * batch_size for k in range(steps)]
        lanes = np.stack([joined(found, lane, "tokens") for lane in range(batch_size)])
        np.testing.assert_array_equal(np.diff(lanes) % cache.size, 1 % cache.size)
        seen = np.stack([joined(found, lane, "targets") for lane in range(batch_size)]).ravel()
        assert len(np.unique(seen)) == len(seen), "every token at most once"
        for lane, tokens in enumerate(lanes):
            document = np.searchsorted(starts, tokens, side="right")
            np.testing.assert_array_equal(joined(found, lane, "positions"), tokens - starts[document - 1])
            segments = joined(found, lane, "segments")
            new = np.isin(tokens[1:], starts)  # a document has one number, whichever row it is in, and the next another
            np.testing.assert_array_equal(np.diff(segments), new)
            assert segments[0] > 0


@given(CORPORA, st.integers(1, 9), st.integers(1, 4), st.integers(0, 20), st.integers(1, 3))
def test_a_batch_is_the_same_however_it_is_reached(cache, length, batch_size, start, cut):
    assume(cache.size // length >= batch_size)
    skips = ((3, 2),)
    batches = stream(cache, length, batch_size, skips=skips)
    iterator = batches.iterate(start, threads=2)
    for k in range(start, start + 4):
        whole = stream(cache, length, batch_size, skips=skips).batch(k)
        parts = [batches.batch(k, rows) for rows in (slice(cut), slice(cut, None)) if len(range(batch_size)[rows])]
        ahead = next(iterator)
        for name, value in whole.items():
            np.testing.assert_array_equal(value, np.concatenate([p[name] for p in parts]))
            np.testing.assert_array_equal(value, ahead[name])


def test_microbatches_do_not_change_the_stream():
    cache = cache_of(*[13] * 30)
    one, four = stream(cache, 5, 8), stream(cache, 5, 8, accumulate=4)
    for k in range(12):
        np.testing.assert_array_equal(one.batch(k)["tokens"], four.batch(k)["tokens"])


def test_what_was_remembered_is_forgotten_behind_a_skip():
    cache = cache_of(400)
    plain, skipping = stream(cache, 8, 2), stream(cache, 8, 2, skips=((3, 2),))
    assert [skipping.batch(k)["reset"].tolist() for k in range(5)] == [[1, 1], [0, 0], [0, 0], [1, 1], [0, 0]]
    np.testing.assert_array_equal(skipping.batch(3)["tokens"], plain.batch(5)["tokens"])


@given(CORPORA, st.integers(1, 9), st.integers(1, 4))
def test_evaluation_counts_every_token_once_in_lanes(cache, length, batch_size):
    batches = EvalBatches((cache,), length, batch_size, NextTokens(), packing="stream")
    found = list(batches)
    assert len(found) == len(batches) == -(-cache.size // (length * batch_size))
    plain = EvalBatches((cache,), length, batch_size, NextTokens())
    totals = [sorted(t for b in bs for t in b["targets"][b["weights"] > 0].tolist()) for bs in (found, plain)]
    assert totals[0] == totals[1]
    assert [bool(b["reset"].all()) for b in found] == [k == 0 for k in range(len(found))]
    for lane in range(batch_size):
        real = joined(found, lane, "segments") > 0
        tokens = joined(found, lane, "tokens")[real]
        np.testing.assert_array_equal(np.diff(tokens) % cache.size, 1 % cache.size)


@given(CORPORA, st.integers(1, 9), st.integers(0, 50))
def test_running_rows_are_the_same_rows(cache, length, shift):
    assume(cache.size >= length)
    plain, running = ConcatenatedRows(cache, length).shifted(shift), RunningRows(cache, length).shifted(shift)
    assert type(running) is RunningRows and len(plain) == len(running)
    for i in range(len(plain)):
        a, b = plain[i], running[i]
        np.testing.assert_array_equal(a["tokens"], b["tokens"])
        np.testing.assert_array_equal(a["segments"], b["segments"] - b["segments"][0] + 1)


@pytest.mark.parametrize(
    ("knobs", "message"),
    [
        ({"sources": 2}, "which a mixture of sources would break"),
        ({"batch_warmup": ((0, 4),)}, "which a batch warm-up would break"),
        ({"batch_size": 50}, "has 25 rows of 4 tokens, fewer than batch size 50"),
    ],
)
def test_what_a_stream_cannot_be(knobs, message):
    sources = ((cache_of(100), 1.0),) * knobs.pop("sources", 1)
    with pytest.raises(UserError, match=message):
        Batches(sources, 4, **{"batch_size": 4, "seed": 0, "packing": "stream", **knobs})
