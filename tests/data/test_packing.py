"""Best-fit packing: the rows that hold whole documents, and the algorithm against a plain one."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lm.core.errors import UserError
from lm.data.cache import TokenCache
from lm.data.packing import BestFitRows, best_fit


def plain_best_fit(sizes, capacity):
    """Piece by piece: rooms left."""
    rooms = []
    for size in sorted(sizes, reverse=True):
        fits = [i for i, shape in enumerate(rooms) if shape >= size]
        if fits:
            rooms[min(fits, key=lambda i: rooms[i])] -= size
        else:
            rooms.append(capacity - size)
    return rooms


@given(
    st.integers(1, 30).flatmap(lambda c: st.tuples(st.lists(st.integers(1, c), min_size=1, max_size=80), st.just(c)))
)
def test_is_best_fit_decreasing(given):
    sizes, capacity = given
    bins = best_fit(np.array(sizes), capacity)
    fill = np.bincount(bins, weights=sizes)
    assert set(bins) == set(range(len(fill)))
    assert sorted(capacity - fill) == sorted(plain_best_fit(sizes, capacity))


def cache_of(folder: Path, lengths):
    tokens = np.arange(sum(lengths), dtype=np.uint16)
    offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
    folder.mkdir(parents=True, exist_ok=True)
    return TokenCache(folder, (tokens,), offsets, bytes=len(tokens), dropped=0, digest="")


@given(lengths=st.lists(st.integers(1, 40), min_size=1, max_size=20), length=st.integers(1, 12))
def test_every_prediction_is_in_one_row(tmp_path_factory, lengths, length):
    cache = cache_of(tmp_path_factory.mktemp("cache"), lengths)
    rows = BestFitRows(cache, length)
    predicted = []
    for i in range(len(rows)):
        tokens, segments = rows[i]["tokens"], rows[i]["segments"]
        assert tokens.shape == segments.shape == (length + 1,)
        assert not tokens[segments == 0].any() and (np.diff(segments[segments > 0]) >= 0).all()
        inside = (segments[1:] == segments[:-1]) & (segments[1:] > 0)
        assert (tokens[1:] - tokens[:-1])[inside].tolist() == [1] * inside.sum(), "a segment is a piece of the text"
        predicted += tokens[1:][inside].tolist()
    firsts = set(cache.offsets[:-1].tolist())
    assert sorted(predicted) == [t for t in range(cache.size) if t not in firsts]


def test_the_index_is_made_once_and_its_damage_noticed(tmp_path):
    cache = cache_of(tmp_path / "cache", [5, 9, 3, 30])
    rows = BestFitRows(cache, 8)
    first = [rows[i]["tokens"].tolist() for i in range(len(rows))]
    (index,) = cache.directory.iterdir()
    made = (index / "ends.npy").stat().st_mtime_ns
    again = BestFitRows(cache, 8)
    assert [again[i]["tokens"].tolist() for i in range(len(again))] == first
    assert (index / "ends.npy").stat().st_mtime_ns == made
    (index / "ends.npy").write_bytes(b"")
    with pytest.raises(UserError, match=r"packing index .* is damaged"):
        len(BestFitRows(cache, 8))
    with pytest.raises(IndexError):
        rows[len(rows)]
