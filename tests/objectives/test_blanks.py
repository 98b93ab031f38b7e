"""Blank infilling: the layout by hand, and what holds for any text."""

import json
from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lm.core.component import from_dict, to_dict
from lm.core.errors import UserError
from lm.data.open import open_data
from lm.data.packing import BestFitRows
from lm.data.records.pairs import Pairs
from lm.objectives.blanks import BlankInfilling
from lm.objectives.examples.blanks import (
    THIRTY_SEVENTY,
    WITH_DOCUMENTS,
    WITH_SENTENCES,
    BlankedRows,
    BlankIds,
    LongSpan,
    Sentences,
    ShortSpans,
)
from lm.objectives.objective import check_needs
from lm.text.tokenizers import ByteTokenizer
from lm.zoo.registry import build

MASK, LONG, SENTENCE, START, END, EOS, BOS = 90, 91, 92, 93, 94, 95, 96
IDS = BlankIds(MASK, LONG, SENTENCE, START, END, EOS, BOS)
seeds = st.integers(0, 2**32 - 1)
few = settings(max_examples=25, deadline=None)


def row_of(*texts: list[int], length: int, **channels: list[int]) -> dict[str, np.ndarray]:
    """Packed, each text with its end."""
    tokens = np.concatenate([[], *([*text, EOS] for text in texts)])
    segments = np.repeat(np.arange(1, len(texts) + 1), [len(text) + 1 for text in texts])
    row = {"tokens": tokens, "segments": segments, "bytes": np.where(tokens < MASK, 1, 0)}
    row |= {name: np.array(values) for name, values in channels.items()}
    padded = {k: np.pad(v, (0, length + 1 - len(v))).astype(np.int32) for k, v in row.items()}
    return padded | {"index": np.array(7)}  # what a row says besides its tokens


def restored(example: dict[str, np.ndarray], segment: int) -> list[int]:
    """A document from its text with blanks and its spans, found by their positions."""
    here = example["segments"] == segment
    tokens, targets, prefix, place, span = (
        example[k][here] for k in ("tokens", "targets", "prefix", "text_position", "span")
    )
    text = [[t] for t in tokens[prefix].tolist()]
    for at in np.flatnonzero(~prefix & (span == 1)):
        stop = at + int(np.flatnonzero(targets[at:] == END)[0])
        assert span[at : stop + 1].tolist() == list(range(1, stop - at + 2))
        assert tokens[at] == START and tokens[at + 1 : stop + 1].tolist() == targets[at:stop].tolist()
        assert set(place[at : stop + 1]) == {place[at]} and text[place[at]][0] in (MASK, LONG, SENTENCE)
        text[place[at]] = targets[at:stop].tolist()
    return [t for part in text for t in part]


class Fixed(LongSpan):
    """Always the spans of the example in the builder's docstring."""

    mark = "mask"

    def __call__(self, begins, rng):
        return np.array([[1, 3], [4, 5]])


def test_the_example_of_the_docstring():
    the, quick, brown, fox, jumps = range(5)
    build_ = BlankedRows(((1.0, Fixed()),), IDS, most=2)
    row = row_of([the, quick, brown, fox, jumps], length=6)
    made = next(e for e in (build_(row, np.random.default_rng(i)) for i in range(9)) if e["tokens"][5] == jumps)
    assert made["tokens"].tolist() == [the, MASK, fox, MASK, START, jumps, START, quick, brown, 0, 0]
    assert made["targets"].tolist()[4:9] == [jumps, END, quick, brown, END]
    assert made["weights"].tolist() == [0.0] * 4 + [1.0] * 5 + [0.0] * 2
    assert made["text_position"].tolist() == [0, 1, 2, 3, 3, 3, 1, 1, 1, 0, 0]
    assert made["span"].tolist() == [0, 0, 0, 0, 1, 2, 1, 2, 3, 0, 0]
    assert made["prefix"].tolist() == [True] * 4 + [False] * 7
    assert made["positions"].tolist() == [*range(9), 0, 0]
    assert made["segments"].tolist() == [1] * 9 + [0, 0]
    assert made["bytes"].tolist() == [0, 0, 0, 0, 1, 0, 1, 1, 0, 0, 0]


CHOICES = [BlankInfilling().blanks, WITH_DOCUMENTS, WITH_SENTENCES, THIRTY_SEVENTY]


@few
@given(st.sampled_from(CHOICES), st.lists(st.integers(0, 40), min_size=1, max_size=4), st.booleans(), seeds)
def test_every_document_can_be_restored(choices, sizes, bos, seed):
    rng = np.random.default_rng(seed)
    texts = [[*[BOS] * bos, *rng.integers(0, 50, n).tolist()] for n in sizes]
    length = sum(len(text) + 1 for text in texts) + 3
    begins = rng.random(length + 1) < 0.2
    row = row_of(*texts, length=length, sentence=begins.tolist())
    made = BlankedRows(choices, IDS)(row, np.random.default_rng(seed))
    again = BlankedRows(choices, IDS)(row, np.random.default_rng(seed))
    assert all((made[k] == again[k]).all() for k in made)
    empty = BlankedRows(choices, IDS)(row_of(length=length, sentence=[]), rng)
    assert {k: (v.shape, v.dtype) for k, v in made.items()} == {k: (v.shape, v.dtype) for k, v in empty.items()}
    for i, text in enumerate(texts):
        assert restored(made, i + 1) == text
        assert BOS not in made["targets"]
    # What is predicted is in the spans, and nothing else is.
    assert (made["weights"] > 0).tolist() == ((made["segments"] > 0) & ~made["prefix"]).tolist()
    assert ((made["span"] > 0) == (made["weights"] > 0)).all()
    assert made["bytes"].sum() == np.isin(made["targets"][made["weights"] > 0], range(50)).sum()


def test_short_spans_make_up_their_share_and_have_poisson_lengths():
    rng, choose, lengths = np.random.default_rng(0), ShortSpans(), []
    hidden = np.zeros(400)
    for _ in range(400):
        spans = choose(np.zeros(400), rng)
        sizes = spans[:, 1] - spans[:, 0]
        assert sizes.sum() == 60 and (spans[1:, 0] > spans[:-1, 1]).all() and len(spans) <= choose.most(400)
        lengths += sizes[:-1].tolist()
        for start, stop in spans:
            hidden[start:stop] += 1
    poisson = np.exp(-3.0) * np.cumprod([1.0, *(3.0 / k for k in range(1, 12))])
    expected = np.array([poisson[0] + poisson[1], *poisson[2:7]])  # a length of 0 becomes 1
    found = np.bincount(lengths, minlength=8)[1:7] / len(lengths)
    assert np.abs(found - expected).max() < 0.02
    assert abs(hidden.mean() / 400 - 0.15) < 1e-9 and np.abs(hidden / 400 - 0.15).max() < 0.08  # everywhere alike


def test_long_spans_are_evenly_long_and_end_the_text_where_asked():
    rng = np.random.default_rng(0)
    spans = np.concatenate([LongSpan()(np.zeros(100), rng) for _ in range(2000)])
    sizes = spans[:, 1] - spans[:, 0]
    assert sizes.min() == 50 and sizes.max() == 100 and abs(sizes.mean() - 75) < 1
    assert 0.5 < (spans[:, 1] == 100).mean() < 0.56  # half, and those that end there by chance
    always = np.concatenate([LongSpan(0.0, 1.0, 1.0)(np.zeros(100), rng) for _ in range(2000)])
    assert (always[:, 1] == 100).all() and always[:, 0].min() == 0 and abs(always[:, 0].mean() - 49.5) < 2


def test_sentences_are_whole_and_one_is_left():
    begins = np.zeros(60, int)
    begins[[0, 7, 20, 31, 50]] = 1
    edges, seen = {0, 7, 20, 31, 50, 60}, Counter()
    for seed in range(200):
        spans = Sentences(0.3)(begins, np.random.default_rng(seed))
        assert {int(x) for x in spans.ravel()} <= edges and 18 <= (spans[:, 1] - spans[:, 0]).sum() < 60
        seen.update(map(tuple, spans.tolist()))
    assert len(seen) > 5
    assert len(Sentences()(np.zeros(60, int), np.random.default_rng(0))) == 0  # a single sentence is left


def test_choices_are_drawn_at_their_rates():
    build_, row = BlankedRows(THIRTY_SEVENTY, IDS, running=True), row_of(list(range(40)), length=41)
    drawn = Counter()
    for seed in range(600):
        made = build_(row, np.random.default_rng(seed))
        long = bool((made["tokens"] == LONG).any())
        drawn[long] += 1
        if long:  # the positions of a long span go on from the text
            assert (made["text_position"] == made["positions"]).all()
    assert abs(drawn[True] / 600 - 0.7) < 0.06


def test_what_a_record_marks_as_target_is_its_blank():
    row = row_of([1, 2, 3, 4, 5], length=8, target=[0, 0, 0, 1, 1, 1])
    made = BlankedRows(BlankInfilling().blanks, IDS)(row, np.random.default_rng(0))
    assert made["tokens"][:7].tolist() == [1, 2, 3, LONG, START, 4, 5]
    assert made["targets"][made["weights"] > 0].tolist() == [4, 5, END]


def test_instructions_are_mixed_in_as_pairs(tmp_path):
    """GLM-130B's multi-task instruction pre-training: text and pairs, under one objective."""
    (tmp_path / "pairs.jsonl").write_text('{"inputs": "2 + 3?", "targets": "five"}\n' * 30)
    (tmp_path / "text.txt").write_text("a line of text that is no pair\n" * 30)
    names = ("[MASK]", "[gMASK]", "[sop]", "[eop]")
    mixture = ((str(tmp_path / "text.txt"), 0.95), (str(tmp_path / "pairs.jsonl"), 0.05, to_dict(Pairs())))
    data = open_data("", mixture=mixture, cache=tmp_path / "cache", reserved=names, holdout=0.3)
    build_, length = BlankInfilling(THIRTY_SEVENTY).examples(data.tokenizer), 24
    long_mask = data.tokenizer.piece_id("[gMASK]")
    text, pairs = (BestFitRows(part.train, length) for part in data.parts)
    made = build_(pairs[0], np.random.default_rng(0))
    asked = made["targets"][made["weights"] > 0]
    assert data.tokenizer.decode(asked) == "five" * int((made["tokens"] == long_mask).sum()) != ""
    assert data.tokenizer.decode(made["tokens"][made["prefix"]]).startswith("2 + 3?")
    assert build_(text[0], np.random.default_rng(0))["weights"].sum() > 0
    other = build_(text[0], np.random.default_rng(1))
    assert {k: v.shape for k, v in made.items()} == {k: v.shape for k, v in other.items()}


def test_texts_beyond_the_room_are_only_read():
    row = row_of(*([i, i + 1] for i in range(12)), length=40)
    made = BlankedRows(((1.0, LongSpan()),), IDS)(row, np.random.default_rng(0))
    assert len(made["tokens"]) == 41 + 2 * 8 and (made["tokens"] == LONG).sum() == 8
    assert [restored(made, i + 1) for i in range(12)] == [[i, i + 1] for i in range(12)]


@few
@given(st.integers(4, 30), seeds)
def test_positions_are_those_of_a_model_for_so_many_tokens(length, seed):
    """Also of a text that fills the row and is hidden as a whole: each table of GLM has context + 1 rows."""
    row = row_of(list(range(length + 1)), length=length + 1)
    row = {name: values[: length + 1] for name, values in row.items() if values.ndim}
    made = BlankedRows(((1.0, LongSpan(1.0, 1.0)),), IDS)(row, np.random.default_rng(seed))
    assert made["span"].max() == length and made["text_position"].max() <= length
    assert restored(made, 1) == list(range(length + 1))


def test_rows_that_fill_a_context():
    for choices in (BlankInfilling().blanks, WITH_DOCUMENTS):
        objective, length = BlankInfilling.filling(512, choices, ids=IDS)
        rng = np.random.default_rng(0)
        widths = [len(objective.examples()(row_of(length=n), rng)["tokens"]) for n in (length, length + 1)]
        assert widths[0] <= 512 < widths[1]
    with pytest.raises(UserError, match="16 tokens have no room for blanks: give 18 or more"):
        BlankInfilling.filling(16)


def test_json_round_trip_and_shapes_without_a_tokenizer():
    for objective in (BlankInfilling(), BlankInfilling(THIRTY_SEVENTY, 20, True, IDS)):
        assert from_dict(json.loads(json.dumps(to_dict(objective)))) == objective
    row, rng = row_of(list(range(20)), length=30), np.random.default_rng(0)
    made, shapes = (BlankInfilling(ids=ids).examples()(row, rng) for ids in (IDS, None))
    assert {k: (v.shape, v.dtype) for k, v in made.items()} == {k: (v.shape, v.dtype) for k, v in shapes.items()}


def test_errors_name_the_knob_and_the_remedy():
    with pytest.raises(UserError, match=r"has no \[MASK\], \[gMASK\], \[sop\], \[eop\].*config.data.reserved=\[MASK\]"):
        BlankInfilling(WITH_DOCUMENTS).examples(ByteTokenizer())
    for bad in (
        lambda: ShortSpans(0.0),
        lambda: ShortSpans(mean=0.5),
        lambda: LongSpan(0.6, 0.5),
        lambda: Sentences(1),
    ):
        with pytest.raises(UserError, match="give"):
            bad()
    with pytest.raises(UserError, match="rate above 0"):
        BlankInfilling(())
    assert BlankInfilling(WITH_SENTENCES).needs().channels == ("sentence",) and not BlankInfilling().needs().channels
    shape = {"layers": 1, "d_model": 8, "heads": 2, "vocab": 97}
    check_needs(BlankInfilling(), build({"family": "glm", **shape}))
    with pytest.raises(UserError, match=r"reads the rows 'prefix'.*take a model with .*Prefix"):
        check_needs(BlankInfilling(), build({"family": "gpt2", **shape, "context": 16}))
