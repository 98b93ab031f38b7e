import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lm.core.component import from_dict, to_dict
from lm.core.errors import UserError
from lm.objectives.examples.middle import MiddleIds, MovedMiddles
from lm.objectives.examples.next_token import NextTokens
from lm.objectives.middle import FillInTheMiddle
from lm.text.tokenizers import ByteTokenizer

BOS, EOS, PRE, SUF, MID = 1, 2, 3, 4, 5
IDS = MiddleIds(PRE, SUF, MID)


def row_of(sizes, padding=0):
    """Documents of distinct tokens that tell their place, each with its begin and its end of text; token t covers t % 5
    bytes."""
    tokens = np.arange(100, 100 + sum(sizes))
    ends = np.cumsum(sizes)
    tokens[ends - sizes] = BOS
    tokens[ends - 1] = EOS
    segments = np.repeat(np.arange(1, len(sizes) + 1), sizes)
    row = {"tokens": tokens, "segments": segments, "bytes": tokens * (tokens >= 100) % 5}
    return {name: np.pad(x, (0, padding)).astype(np.int32) for name, x in row.items()}


def documents(example):
    """The tokens of each document."""
    tokens = np.append(example["tokens"], example["targets"][-1])
    segments = np.append(example["segments"], example["segments"][-1] * (example["weights"][-1] > 0))
    return [tokens[segments == s].tolist() for s in range(1, segments.max() + 1)]


def restored(document):
    """A document in its order, by what the three tokens say of it. Prefix and middle may follow one another already."""
    if MID not in document:
        return document
    assert document[0] == BOS and document[-1] == EOS
    text = document[1:-1]
    pre, suf, mid = (text.index(t) for t in (PRE, SUF, MID))
    if suf < pre:
        assert suf == 0
        suffix, prefix, middle = text[1:pre], text[pre + 1 : mid], text[mid + 1 :]
    else:
        assert pre == 0
        prefix, suffix, middle = text[1:suf], text[suf + 1 : mid], text[mid + 1 :]
    return [BOS, *prefix, *middle, *suffix, EOS]


sizes = st.lists(st.integers(2, 9), min_size=1, max_size=4)


@settings(max_examples=60)
@given(sizes, st.sampled_from([0.0, 1.0]), st.booleans(), st.integers(0, 2**32 - 1))
def test_no_document_loses_a_token(sizes, suffix_first, joined, seed):
    row = row_of(sizes, padding=3 * len(sizes))
    build = MovedMiddles(1.0, suffix_first, joined, IDS, BOS, EOS)
    example = build(row, np.random.default_rng(seed))
    found = documents(example)
    assert all({PRE, SUF, MID} <= set(d) for d in found)
    assert [restored(d) for d in found] == documents(NextTokens()(row, None))
    # all of a document is predicted but its first token, and each target brings its own bytes
    assert example["weights"].sum() == sum(sizes) + 2 * len(sizes)
    assert example["bytes"].tolist() == (example["targets"] * (example["targets"] >= 100) % 5).tolist()
    places = [i for document in found for i in range(len(document))]
    assert example["positions"].tolist() == places[:-1] + [0] * (len(example["positions"]) - len(places) + 1)


@pytest.mark.parametrize(
    ("suffix_first", "joined", "order"),
    [
        (0.0, True, "P prefix S suffix M middle"),
        (1.0, True, "P S suffix M prefix middle"),
        (1.0, False, "S suffix P prefix M middle"),
    ],
)
def test_layouts_as_published(suffix_first, joined, order):
    class Cuts:
        def random(self):
            return 0.5

        def integers(self, low, high, size):
            assert (low, high, size) == (0, 7, 2)
            return np.array([5, 2])

    row = row_of([8], padding=3)
    parts = {"prefix": [101, 102], "middle": [103, 104, 105], "suffix": [106], "P": [PRE], "S": [SUF], "M": [MID]}
    example = MovedMiddles(1.0, suffix_first, joined, IDS, BOS, EOS)(row, Cuts())
    assert documents(example) == [[BOS, *(t for part in order.split() for t in parts[part]), EOS]]


def test_rates():
    row, build = row_of([6] * 4, padding=12), MovedMiddles(0.9, 0.5, True, IDS, BOS, EOS)
    moved = first = 0
    for seed in range(400):
        for document in documents(build(row, np.random.default_rng(seed))):
            moved += MID in document
            first += document[1:3] == [PRE, SUF]
    assert abs(moved / 1600 - 0.9) < 0.03
    # of the others, those with an empty prefix look the same: no more than 9 of 25 pairs of cuts
    assert 0.5 * moved < first < 0.5 * moved * (1 + 9 / 25) + 60


def test_the_end_of_a_full_row_is_left_out():
    row = row_of([10, 10])
    example = MovedMiddles(1.0, 0.0, True, IDS, BOS, EOS)(row, np.random.default_rng(0))
    one, two = documents(example)
    assert len(one) == 13 and len(two) == 7
    assert restored(one) == row["tokens"][:10].tolist()
    assert all(v.shape == (19,) for v in example.values())


def test_rows_of_nothing_and_of_no_moved_document_are_as_ever():
    for row, rate in ((row_of([4, 5], 3), 0.0), ({k: x * 0 for k, x in row_of([5]).items()}, 1.0)):
        made = MovedMiddles(rate, 0.5, True, IDS, BOS, EOS)(row, np.random.default_rng(0))
        plain = NextTokens()(row, np.random.default_rng(0))
        assert made.keys() == plain.keys() and all((made[k] == plain[k]).all() for k in made)
        assert all(made[k].dtype == plain[k].dtype for k in made)


def test_tokens_come_from_the_vocabulary_or_are_its_last_sentinels():
    class Code(ByteTokenizer):
        markers = ("<fim_prefix>", "<fim_suffix>", "<fim_middle>")

        def piece_id(self, name):
            return 500 + self.markers.index(name)

    assert FillInTheMiddle().examples(Code()).ids == MiddleIds(500, 501, 502)
    assert FillInTheMiddle().examples(ByteTokenizer()).ids == MiddleIds(381, 382, 383)
    assert FillInTheMiddle(ids=IDS).examples(ByteTokenizer()).ids == IDS
    with pytest.raises(UserError, match=r"no tokens for prefix.*data\.reserved=\[<fim_prefix>"):
        FillInTheMiddle().examples(ByteTokenizer(extra_ids=2))
    objective = FillInTheMiddle(0.9, ids=IDS)
    assert from_dict(to_dict(objective)) == objective
    with pytest.raises(UserError, match="rate"):
        from_dict(to_dict(objective) | {"rate": 1.5}, "objective")
