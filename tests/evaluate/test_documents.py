"""Windows: each token is scored once, with enough before it, and batches are of few shapes."""

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lm.core.errors import UserError
from lm.data.sources import Document
from lm.data.tokenize import build_cache
from lm.evaluate.documents import DocumentWindows
from lm.evaluate.rows import batches, groups, rows_together
from lm.text.tokenizers import ByteTokenizer

BYTES = ByteTokenizer()
BOS = (7, 9)  # such as GLM's two


class Texts(list):
    def __iter__(self):
        return (Document(str(i), text) for i, text in enumerate(super().__iter__()))

    @property
    def fingerprint(self) -> str:
        return repr(list(super().__iter__()))


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("caches")


@given(
    texts=st.lists(st.text("abcdefghé", min_size=1, max_size=30), min_size=1, max_size=4),
    before=st.sampled_from([(), BOS[:1], BOS]),
    length=st.integers(2, 12),
    stride=st.none() | st.integers(1, 11),
    first=st.booleans(),
    end=st.booleans(),
)
def test_every_token_is_scored_once(folder, texts, before, length, stride, first, end):
    cache = build_cache(Texts(texts), BYTES, folder, workers=1)
    if stride is not None and stride >= length:
        with pytest.raises(UserError, match=f"a stride of {stride} does not suit rows of {length} tokens"):
            DocumentWindows(cache, length, before, stride, first)
        return
    rows = DocumentWindows(cache, length, before, stride, first, end)
    lead = len(before)
    wholes = [[*before, *BYTES.encode(text), *[BYTES.eos_id] * end] for text in texts]
    found, covered = {i: [] for i in range(len(texts))}, 0
    for i, (document, start, stop, begin) in enumerate(zip(*rows.windows, strict=True)):
        row, whole = rows.row(i, (length,)), wholes[document]
        size = stop - start
        assert 0 < size <= length and rows.sizes[i, 0] == size
        assert row["tokens"][:size].tolist() == whole[start:stop]
        assert row["targets"][:size].tolist() == whole[start + 1 : stop + 1]
        assert row["positions"].tolist() == [*range(size), *[0] * (length - size)]
        assert row["segments"].tolist() == [1] * size + [0] * (length - size)
        scored = start + 1 + np.flatnonzero(row["weights"])
        assert scored.tolist() == list(range(begin, stop + 1)) and rows.scored[i] == len(scored)
        if stride is not None and start:
            assert begin - start >= length - stride
        found[int(document)] += scored.tolist()
        covered += int(row["bytes"])
    for document, whole in enumerate(wholes):
        least = max(lead + (not first), 1)
        assert found[document] == list(range(least, len(whole)))
    if first and before:
        assert covered == sum(len(text.encode()) for text in texts)


@given(
    sizes=st.lists(st.tuples(st.integers(1, 100), st.integers(1, 40)), max_size=40),
    together=st.integers(1, 5),
)
def test_rows_of_like_size_share_batches(sizes, together):
    planned = groups(np.array(sizes, int).reshape(-1, 2), (100, 40), lambda shape: together)
    which = np.concatenate([group.rows for group in planned]) if planned else np.zeros(0, int)
    assert sorted(which.tolist()) == list(range(len(sizes)))
    for shape, rows, count in planned:
        assert shape[0] <= 100 and shape[1] <= 40 and 0 < count <= together
        assert all(sizes[i][0] <= shape[0] and sizes[i][1] <= shape[1] for i in rows)
    assert all(len(group.rows) >= together for group in planned[1:])  # but for the largest, all fill a batch


def test_a_last_batch_is_filled_with_empty_rows():
    rows = SimpleNamespace(sizes=np.array([[3], [20], [4]]), row=lambda i, shape: {"x": np.full(shape, i + 1)})
    made = list(batches(rows, groups(rows.sizes, (64,), lambda shape: 2)))
    assert [batch["x"].shape for batch in made] == [(1, 32), (2, 16)]
    assert [batch["x"][:, 0].tolist() for batch in made] == [[2], [1, 3]]


def test_batches_fit_memory():
    assert rows_together(lambda shape, rows: 4 * shape[0] * rows, (64,)) == 128  # 8,192 tokens
    assert rows_together(lambda shape, rows: rows << 26, (64,)) == 5  # three of 64 MiB at a time for each, in 1 GiB
    with pytest.raises(UserError, match=r"a row of 131,072 tokens takes some .* GB.*give a smaller --length"):
        rows_together(lambda shape, rows: shape[0] ** 2 * 1000 * rows, (131072,))
