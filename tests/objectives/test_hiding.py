"""What is hidden of a row: tokens, words, spans of words, given phrases, words with similar ones."""

import json
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lm.core.errors import UserError
from lm.objectives.examples.hiding import (
    GeometricSpans,
    GivenSpans,
    MaskableRow,
    NGrams,
    SingleTokens,
    WholeWords,
    words_of,
)
from lm.objectives.examples.masked import HiddenTokens
from lm.objectives.masked import MaskedSpans, MaskedTokens
from lm.text.tokenizers import ByteTokenizer

BYTES = ByteTokenizer()
MASK = BYTES.sentinel(0)
ALL = (SingleTokens(), WholeWords(), GivenSpans(), GivenSpans(False), GeometricSpans(), NGrams())


def maskable(seed: int, length: int) -> MaskableRow:
    """Documents of words of one to four tokens, with special tokens, phrases and padding."""
    rng = np.random.default_rng(seed)
    segments = np.cumsum(rng.random(length) < 0.05) + 1
    segments[length - rng.integers(0, 5) :] = 0
    text = (segments > 0) & (rng.random(length) > 0.05)
    spans = np.where(rng.random(length) < 0.3, 1 + np.arange(length) // 6, 0)
    return MaskableRow(text, segments, rng.random(length) < 0.4, spans)


def row_of(text: str, length: int | None = None) -> dict:
    ids = BYTES.encode(text)[:length]
    tokens = np.append(ids, BYTES.eos_id).astype(np.int32)
    return {"tokens": tokens, "segments": np.ones_like(tokens)}


@settings(max_examples=60)
@given(st.sampled_from(ALL), st.integers(0, 10**6), st.integers(1, 80), st.integers(1, 30))
def test_only_text_is_hidden_within_the_budget_and_words_are_whole(hiding, seed, length, budget):
    row = maskable(seed, length)
    at, group = hiding(row, budget, np.random.default_rng(seed))
    assert len(at) == len(group) == len(set(at.tolist())) and row.text[at].all()
    assert len(at) <= budget or np.ptp(at) == len(at) - 1  # one word that is longer
    assert sorted(set(group.tolist())) == list(range(len(set(group.tolist()))))
    hidden = np.isin(np.arange(length), at)
    if isinstance(hiding, (WholeWords, GeometricSpans, NGrams)):
        shares = [hidden[first:end].mean() for first, end in words_of(row)]
        assert set(shares) <= {0.0, 1.0}
    if isinstance(hiding, GivenSpans):
        for number in set(row.spans.tolist()) - {0}:
            for segment in set(row.segments.tolist()) - {0}:
                there = np.flatnonzero((row.spans == number) & (row.segments == segment) & row.text)
                for phrase in np.split(there, np.flatnonzero(np.diff(there) > 1) + 1):
                    assert len(phrase) == 0 or hidden[phrase].mean() in (0.0, 1.0)
                    assert len(set(group[np.isin(at, phrase)].tolist())) <= 1
    again = hiding(row, budget, np.random.default_rng(seed))
    np.testing.assert_array_equal(again.at, at)


@settings(max_examples=60)
@given(st.sampled_from(ALL), st.integers(0, 10**6), st.integers(1, 12), st.integers(1, 2), st.integers(0, 2))
def test_one_word_is_hidden_where_any_can_be(hiding, seed, length, budget, short):
    """Words of `short` + 2 tokens and more, none of which fits into most budgets."""
    row = maskable(seed, length)
    row = row._replace(starts=np.arange(length) % (short + 2) == 0)
    at, _ = hiding(row, budget, np.random.default_rng(seed))
    words = words_of(row)
    if isinstance(hiding, GeometricSpans):  # which leaves a token on both sides
        padded = np.concatenate([[0], row.segments, [0]])
        beside = (padded[words[:, 0]], padded[words[:, 1] + 1])
        words = words[np.all([side == row.segments[words[:, 0]] for side in beside], axis=0)]
    assert bool(len(at)) == bool(len(words))
    if isinstance(hiding, (WholeWords, GeometricSpans, NGrams)) and len(words):
        shortest = np.diff(words).min()
        assert len(at) <= max(budget, shortest) and (shortest <= budget or len(at) == shortest)


@settings(max_examples=40)
@given(st.integers(0, 10**6), st.integers(3, 80), st.integers(1, 30))
def test_spans_have_a_visible_token_of_their_document_on_both_sides(seed, length, budget):
    row = maskable(seed, length)
    at, group = GeometricSpans()(row, budget, np.random.default_rng(seed))
    for number in set(group.tolist()):
        span = np.sort(at[group == number])
        assert (np.diff(span) == 1).all() and span[0] > 0 and span[-1] < length - 1
        beside = [span[0] - 1, span[-1] + 1]
        assert not np.isin(beside, at).any()
        assert set(row.segments[[*beside, *span]].tolist()) == {row.segments[span[0]]}


@pytest.mark.parametrize("hiding", [WholeWords(), NGrams(), GeometricSpans(), GivenSpans()])
def test_where_no_word_fits_the_shortest_is_hidden(hiding):
    row = row_of("unbelievable thing happened") | {"span": np.zeros(28, np.int32)}
    for predictions, hidden in ((0, " thing"), (3, " th")):
        made = MaskedTokens(0.02, hiding=hiding, predictions=predictions).examples(BYTES)(row, _rng(0))
        assert BYTES.decode(made["targets"][made["weights"] > 0]) == hidden


def lengths_in_words(hiding, rows: int) -> Counter:
    """Words per span over long rows of words of two tokens."""
    length = 6000
    row = MaskableRow(np.ones(length, bool), np.ones(length, int), np.arange(length) % 2 == 0)
    found: Counter = Counter()
    for seed in range(rows):
        at = np.sort(hiding(row, length // 50, np.random.default_rng(seed)).at)
        found.update(len(run) // 2 for run in np.split(at, np.flatnonzero(np.diff(at) > 1) + 1))
    return found


def test_spans_are_geometric_with_a_mean_of_3_8_words():
    found = lengths_in_words(GeometricSpans(), 200)
    count = sum(found.values())
    mean = sum(length * n for length, n in found.items()) / count
    assert 10 in found and max(found) == 10
    assert abs(mean - 3.797) < 4 * 2.6 / count**0.5 + 0.1  # the last of a row is cut: a little less
    np.testing.assert_allclose(GeometricSpans().shares @ np.arange(1, 11), 3.797, atol=1e-3)


def test_words_in_a_row_come_at_40_30_20_10_percent():
    found = lengths_in_words(NGrams(), 200)
    count = sum(found[n] for n in range(1, 5))
    np.testing.assert_allclose([found[n] / count for n in range(1, 5)], [0.4, 0.3, 0.2, 0.1], atol=0.03)


def test_tokens_of_a_span_are_replaced_alike_and_those_of_words_by_themselves():
    row = row_of("what is hidden of a row is seen by the others " * 40)
    for hiding, alike in ((GeometricSpans(), True), (WholeWords(), False)):
        mixed = 0
        for seed in range(20):
            made = MaskedTokens(random=0.0, hiding=hiding).examples(BYTES)(row, _rng(seed))
            at = np.flatnonzero(made["weights"])
            for run in np.split(at, np.flatnonzero(np.diff(at) > 1) + 1):
                mixed += 0 < (made["tokens"][run] == MASK).mean() < 1
        assert (mixed == 0) == alike


@settings(max_examples=25)
@given(st.integers(0, 10**6), st.sampled_from(ALL[:2] + ALL[4:]))
def test_targets_of_predicted_positions_are_those_of_all(seed, hiding):
    row = row_of("what is hidden of a row is seen by the others " * 3) | {"bytes": np.arange(139)}
    whole = MaskedTokens(hiding=hiding).examples(BYTES)(row, np.random.default_rng(seed))
    part = MaskedTokens(hiding=hiding, predictions=30).examples(BYTES)(row, np.random.default_rng(seed))
    at, real = part["predicted"], part["weights"] > 0
    np.testing.assert_array_equal(at[real], np.flatnonzero(whole["weights"]))
    np.testing.assert_array_equal(part["tokens"], whole["tokens"])
    for name in ("targets", "bytes"):
        np.testing.assert_array_equal(part[name][real], whole[name][at[real]])
    few = MaskedTokens(hiding=hiding, predictions=4).examples(BYTES)(row, np.random.default_rng(seed))
    assert few["weights"].shape == (4,) and few["weights"].sum() <= 4


@settings(max_examples=25)
@given(st.integers(0, 10**6))
def test_the_boundary_objective_reads_what_stands_beside_each_span(seed):
    made = MaskedSpans().examples(BYTES)(row_of("a span of words is told from both sides " * 4), _rng(seed))
    asked = made["sbo/weights"] > 0
    np.testing.assert_array_equal(made["mlm/weights"], made["sbo/weights"])
    np.testing.assert_array_equal(made["mlm/targets"], made["sbo/targets"])
    assert asked.any()
    for i in np.flatnonzero(asked):
        left, right, index = (int(made[f"span_{name}"][i]) for name in ("left", "right", "index"))
        assert left < i < right and not asked[[left, right]].any() and asked[left + 1 : right].all()
        assert index == i - left - 1


def _rng(seed: int) -> np.random.Generator:
    return np.random.default_rng(seed)


def similar(tmp_path, lines: str) -> str:
    path = tmp_path / "similar.tsv"
    path.write_text(lines)
    return str(path)


def test_similar_words_stand_in_the_place_of_masks(tmp_path):
    table = similar(tmp_path, "hot\twet\tcold\nwarm\tcool\n")
    build = MaskedTokens(0.5, 0.8, 0.0, hiding=NGrams(), similar=table).examples(BYTES)
    words = ["it", "is", "hot", "and", "warm"] * 200
    made = build(row_of("".join(f" {word}" for word in words)), _rng(0))
    ends = np.cumsum([len(word) + 1 for word in words])
    shown = [BYTES.decode(part)[1:] for part in np.split(made["tokens"], ends[:-1])]
    asked = [part[0] > 0 for part in np.split(made["weights"], ends[:-1])]
    counts = Counter((word, now) for word, now, hidden in zip(words, shown, asked, strict=True) if hidden)
    hidden = Counter(word for word, was in zip(words, asked, strict=True) if was)
    for word, other in (("hot", "wet"), ("warm", "cool")):
        assert abs(counts[word, other] / hidden[word] - 0.8) < 0.2
        assert counts[word, other] + counts[word, word] == hidden[word]  # "cold" has more tokens than "hot"
    assert abs(counts["it", "it"] / hidden["it"] - 0.2) < 0.2  # of others nothing is known: random tokens


@pytest.mark.parametrize(
    ("lines", "message"),
    [("hot wet\n", "line 1: give a word and its similar words with tabs"), ("hot\tcold\n", "as many tokens")],
)
def test_wrong_tables_of_similar_words(tmp_path, lines, message):
    with pytest.raises(UserError, match=message):
        MaskedTokens(hiding=NGrams(), similar=similar(tmp_path, lines)).examples(BYTES)


def test_what_cannot_be_hidden_is_told():
    with pytest.raises(UserError, match="cannot read the table of similar words nowhere"):
        MaskedTokens(hiding=NGrams(), similar="nowhere").examples(BYTES)
    with pytest.raises(UserError, match=r"hiding is SingleTokens: set config\.objective\.hiding\.type=NGrams"):
        MaskedTokens(similar="nowhere")
    with pytest.raises(UserError, match="WholeWords of MaskedSpans may leave no token"):
        MaskedSpans(MaskedTokens(hiding=WholeWords()))
    with pytest.raises(UserError, match=r"p=1\.0 of the lengths"):
        GeometricSpans(p=1.0)
    with pytest.raises(UserError, match="shares="):
        NGrams(())


@pytest.mark.parametrize("kind", ["tokens", "words"])
def test_as_often_as_transformers_collator(kind):
    """What tests/golden/collators.py found: each token, or word, at the same rate, replaced by the same rule; the
    collator puts nothing but masks in the place of words. Here the number of hidden tokens is exact, so that short
    words are hidden a little more often: they fit into what is left."""
    golden = json.loads((Path(__file__).parents[1] / "golden/collators.json").read_text())[kind]
    rng, sizes = np.random.default_rng(0), (1, 2, 3)
    hiding, shares = (WholeWords(), (1.0, 0.0)) if kind == "words" else (SingleTokens(), (0.8, 0.1))
    build = HiddenTokens(0.15, *shares, 4, 125, tuple(range(5)), hiding, np.arange(125) < 65)
    found: Counter = Counter()
    for _ in range(150):
        words = [[5 + rng.integers(60), *(65 + rng.integers(60, size=n - 1))] for n in rng.permutation(sizes * 50)]
        tokens = np.array([2, *(i for word in words for i in word), 3, 0], np.int32)
        made = build({"tokens": tokens, "segments": (tokens > 0).astype(np.int32)}, rng)
        hidden, shown = made["weights"][1:-1] > 0, made["tokens"][1:-1]
        found.update(hidden=hidden.sum() / 300, masked=(shown[hidden] == 4).sum() / hidden.sum())
        found["kept"] += (shown == tokens[1:-2])[hidden].sum() / hidden.sum()
        found["special"] += made["weights"][0] + made["weights"][-1]
        parts = np.split(hidden, np.cumsum([len(word) for word in words])[:-1])
        for n in sizes:
            found[f"whole {n}"] += sum(part.all() for part in parts if len(part) == n) / 50
            found[f"part {n}"] += sum(part.any() and not part.all() for part in parts if len(part) == n) / 50
    assert {name: found[name] / 150 for name in golden} == pytest.approx(golden, abs=0.02)
