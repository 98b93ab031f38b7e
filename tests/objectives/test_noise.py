"""Noises and the denoisers made of them: rates, and that nothing but what they are for is lost."""

import pickle
from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lm.adapt.surgery.non_causal import NonCausal
from lm.core.component import from_dict, to_dict
from lm.core.errors import UserError
from lm.objectives.causal import NextToken
from lm.objectives.denoising import MixtureOfDenoisers, PrefixMixtureOfDenoisers, short_spans
from lm.objectives.examples.continuation import Continuation
from lm.objectives.examples.denoiser import Original
from lm.objectives.examples.denoising import MODES, SpecialIds, filling
from lm.objectives.examples.noise import (
    DocumentRotation,
    Reconstruction,
    SentencePermutation,
    Shuffling,
    SpanDeletion,
    TextInfilling,
    TokenDeletion,
    TokenMasking,
)
from lm.objectives.examples.published import CAUSAL_TOO, CONTINUED, INFILLED, RESTORED, SEVEN, SPANS, SPANS_AS_RUN
from lm.objectives.examples.spans import DroppedTokens, IIDCorruption, SpanCorruption
from lm.objectives.objective import check_needs
from lm.text.tokenizers import ByteTokenizer
from lm.zoo.gpt2 import gpt2

BYTES = ByteTokenizer()
MASK = -1
lengths, seeds = st.integers(2, 200), st.integers(0, 2**32 - 1)
shares = st.floats(0.01, 1.0)


def indices(length, starts=None):
    """A text of the integers from 0, which so tell where each token came from."""
    return Original(np.arange(length), ~np.arange(300, 400), MASK, starts, vocab=256)


def row_of(text, channel=None):
    tokens = np.concatenate([BYTES.encode(text), [1, 1]]).astype(np.int32)
    row = {"tokens": tokens, "segments": np.ones_like(tokens), "bytes": (tokens > 2).astype(np.int32)}
    return row if channel is None else row | {"sentence": channel}


def examples_of(mixture, row, draws, seed=0):
    build = MixtureOfDenoisers.of(len(row["tokens"]) - 1, mixture).examples(BYTES)
    return [build(row, np.random.default_rng([seed, i])) for i in range(draws)]


def rising(values):
    return (np.diff(values) > 0).all()


@settings(max_examples=40)
@given(shares, st.floats(1, 10), st.floats(0, 1), lengths, seeds)
def test_infilling_hides_its_share_and_keeps_the_rest_in_order(share, mean, random, length, seed):
    noised = TextInfilling(share, mean, random).spoiled(indices(length), np.random.default_rng(seed)).tokens
    kept = noised[noised >= 0]
    assert len(kept) == length - min(int(np.ceil(share * length)), length - 1)
    assert rising(kept) and len(noised) <= length
    assert (noised[noised < 0] >= ~255).all()


def test_spans_of_infilling_are_poisson_and_may_be_empty():
    rng, rates, empty = np.random.default_rng(0), [], 0
    for _ in range(400):
        noised = TextInfilling(0.3, 3.0).spoiled(indices(500), rng).tokens
        masks = np.flatnonzero(noised == MASK)
        rates.append(150 / len(masks))
        inner = masks[(masks > 0) & (masks < len(noised) - 1)]
        before, after = noised[inner - 1], noised[inner + 1]
        empty += int(((after == before + 1) & (before >= 0)).sum())  # a mask between two tokens that were neighbours
    assert abs(np.mean(rates) - 3.0) < 0.1  # tokens per mask
    # A span is empty in exp(-3) of all; 0.7 of the tokens and as many spans about it make one in two show as such.
    assert 0.7 * np.exp(-3) < empty / (400 * 50) < 1.1 * np.exp(-3)


@settings(max_examples=30)
@given(shares, lengths, seeds)
def test_masking_and_deletion_take_their_share(share, length, seed):
    rng, count = np.random.default_rng(seed), min(int(np.ceil(share * length)), length - 1)
    masked = TokenMasking(share).spoiled(indices(length), rng).tokens
    assert (masked == MASK).sum() == count
    assert (masked[masked != MASK] == np.flatnonzero(masked != MASK)).all()
    for noise in (TokenDeletion(share), SpanDeletion(share)):
        kept = noise.spoiled(indices(length), rng).tokens
        assert len(kept) == length - count and rising(kept) and kept.min() >= 0


def test_some_masks_are_random_tokens():
    noised = TokenMasking(0.5, random=0.1).spoiled(indices(20_000), np.random.default_rng(0)).tokens
    hidden = noised[noised < 0]
    assert abs((hidden != MASK).mean() - 0.1) < 0.02
    assert len(set(hidden.tolist())) > 200 and hidden.min() >= ~255


@settings(max_examples=30)
@given(st.lists(st.integers(1, 9), min_size=1, max_size=12), st.floats(0, 1), seeds)
def test_sentences_stay_whole_where_they_change_places(sizes, share, seed):
    starts = np.isin(np.arange(sum(sizes)), np.cumsum([0, *sizes[:-1]]))
    noised = SentencePermutation(share).spoiled(indices(len(starts), starts), np.random.default_rng(seed))
    assert sorted(noised.tokens.tolist()) == list(range(len(starts)))
    inside = ~noised.starts[1:]
    assert (np.diff(noised.tokens)[inside] == 1).all()
    assert noised.starts.sum() == len(sizes)
    if share == 0:
        assert rising(noised.tokens)


def test_every_order_of_sentences_and_every_rotation_is_equally_likely():
    rng, starts = np.random.default_rng(0), np.array([True, False, True, True, False])
    orders = Counter(SentencePermutation().spoiled(indices(5, starts), rng).tokens.tobytes() for _ in range(1200))
    turns = Counter(DocumentRotation().spoiled(indices(6), rng).tokens.tobytes() for _ in range(1200))
    for seen in (orders, turns):
        assert len(seen) == 6
        assert all(abs(n - 200) < 5 * 200**0.5 for n in seen.values())
    assert DocumentRotation().spoiled(indices(4), np.random.default_rng(1)).tokens.tolist() in (
        [0, 1, 2, 3],
        [1, 2, 3, 0],
        [2, 3, 0, 1],
        [3, 0, 1, 2],
    )
    kept = [rising(DocumentRotation(0.25).spoiled(indices(50), rng).tokens) for _ in range(600)]
    assert abs(np.mean(kept) - (0.75 + 0.25 / 50)) < 0.06
    shuffled = Shuffling().spoiled(indices(50), rng).tokens
    assert sorted(shuffled.tolist()) == list(range(50)) and not rising(shuffled)


def test_sentences_end_at_full_stops_or_where_the_channel_says():
    text = "One two. Three! Four five? Six"
    sentences = ["One two.", " Three!", " Four five?", " Six"]
    mixture = ((1.0, "", Reconstruction((SentencePermutation(),))),)
    read = {BYTES.decode(e["encoder/tokens"]) for e in examples_of(mixture, row_of(text), 300)}
    assert len(read) == 24
    assert all(sorted(sentences) == sorted(s for s in sentences if s in order) for order in read)
    channel = np.zeros(len(text) + 2, np.int32)
    channel[[0, 4]] = 1
    read = {BYTES.decode(e["encoder/tokens"]) for e in examples_of(mixture, row_of(text, channel), 50)}
    assert read == {text, text[4:] + text[:4]}


def test_the_decoder_writes_the_whole_text():
    text = "The quick brown fox. It jumps over the lazy dog. " * 4
    for example in examples_of(INFILLED, row_of(text), 20):
        assert BYTES.decode(example["targets"]) == text
        assert example["weights"].sum() == len(text) + 2  # the document's end, and the end of the targets
        assert (example["encoder/tokens"] == BYTES.sentinel(0)).any()
        assert example["bytes"].sum() == len(text)


@pytest.mark.parametrize("mixture", [RESTORED, CAUSAL_TOO])
def test_a_text_to_continue_is_announced(mixture):
    text = "abcdefghij" * 20
    draws = 400
    drawn = Counter()
    # the last sentinels: two for these modes, then three for the others
    announced = {BYTES.sentinel(BYTES.sentinels - 5): "CLM", BYTES.sentinel(BYTES.sentinels - 4): "CDec"}
    for example in examples_of(mixture, row_of(text), draws):
        mode = announced.get(int(example["encoder/tokens"][0]), "")
        drawn[mode] += 1
        read, written = BYTES.decode(example["encoder/tokens"]), BYTES.decode(example["targets"])
        if mode:
            assert read + written == text
            share = len(read) / 201
            if mode == "CDec":
                assert share == 0
            else:
                least, most = (0.2, 0.8) if mixture is RESTORED else (0.1, 0.9)
                assert least <= share <= most
        elif mixture is RESTORED:
            assert written == text and len(read) in (170, 169)  # 31 of 201 tokens are gone, the end of text or not
    total = sum(rate for rate, _, _ in mixture)
    for rate, mode, _ in mixture:
        assert abs(drawn[mode] / draws - rate / total) < 0.08


def test_rows_of_a_source_may_take_turns():
    """By their index in its stream, whoever builds them: each prefix of the stream has the right shares."""
    objective, row = MixtureOfDenoisers.of(60, CONTINUED, exact=True), row_of("abcdefghij" * 6)
    build, drawn = objective.examples(BYTES), Counter()
    row = {name: x[:61] for name, x in row.items()}
    for i in range(160):
        example = build(row | {"index": np.array(i)}, np.random.default_rng(i))
        drawn[MODES[int(example["encoder/tokens"][0]) - BYTES.sentinel(BYTES.sentinels - 3)]] += 1
        if i % 40 == 39:
            assert drawn == {"S": (i + 1) / 2, "R": (i + 1) / 4, "X": (i + 1) / 4}


def test_tokens_for_modes_are_those_of_the_vocabulary():
    class Named(ByteTokenizer):
        @property
        def markers(self):
            return [*super().markers, "[CLM]", "[R]", "[S]", "[X]"]

        def piece_id(self, name):
            named = ("[CLM]", "[R]", "[S]", "[X]")
            return 384 + named.index(name) if name in named else super().piece_id(name)

    ids = SpecialIds.of(Named(), {"CLM", "X"})
    assert ids.modes[: len(MODES) - 1] == (385, 386, 387, 384) and ids.sentinels == 125
    assert SpecialIds.of(Named(), {"CDec"}).sentinels == 120  # it is not spelled: all stand at the end of the sentinels
    assert SpecialIds.of(BYTES, {"R"}).modes[:3] == (381, 382, 383)


def test_rates_of_continued_training():
    """Half sequential, a quarter regular, a quarter extreme."""
    rates = Counter()
    for rate, mode, _ in CONTINUED:
        rates[mode] += rate
    assert rates == {"S": 0.5, "R": 0.25, "X": 0.25}


def lengths_as_published(inputs, density, mean):
    """T5's rule, spelled out: the most tokens of which the inputs, with their end, are no more than `inputs`."""

    def both(tokens):
        noise = round(tokens * density)
        spans = round(noise / mean)
        return tokens - noise + spans + 1, noise + spans + 1

    tokens = inputs
    while both(tokens + 1)[0] <= inputs:
        tokens += 1
    return tokens, both(tokens)[1]


@pytest.mark.parametrize(
    ("inputs", "density", "mean", "length", "targets"),
    [
        (512, 0.15, 3.0, 568, 114),  # as T5's code says of itself
        (1024, 0.15, 3.0, 1137, 229),
        (512, 0.15, 8.0, 588, 100),
        (512, 0.3, 3.0, 639, 257),
        (512, 0.1, 2.0, 538, 82),
        (256, 0.15, 3.0, 284, 58),
        (128, 0.25, 5.0, 159, 49),
        (2048, 0.15, 64.0, 2401, 367),
    ],
)
def test_rows_fill_inputs_and_targets_exactly(inputs, density, mean, length, targets):
    mixture = ((1.0, "", SpanCorruption(mean, density, final=False)),)
    objective, rows = MixtureOfDenoisers.filling(inputs, mixture)
    assert (rows, objective.targets) == (length, targets) == lengths_as_published(inputs, density, mean)
    tokenizer = ByteTokenizer(extra_ids=256)
    row = {"tokens": np.full(rows + 1, 70, np.int32), "segments": np.ones(rows + 1, np.int32)}
    example = objective.examples(tokenizer)(row, np.random.default_rng(0))
    assert len(example["encoder/tokens"]) == inputs and (example["encoder/segments"] == 1).all()
    assert (example["weights"] == 1).all()
    assert example["encoder/tokens"][-1] == example["targets"][-1] == tokenizer.eos_id


@settings(max_examples=20)
@given(st.integers(20, 400), st.floats(0.02, 0.49), st.floats(1.5, 20))
def test_filling_is_the_longest_row(size, density, mean):
    mixture = ((1.0, "R", SpanCorruption(mean, density)), (1.0, "", IIDCorruption(density)))
    for kind in (MixtureOfDenoisers, PrefixMixtureOfDenoisers):
        objective, length = kind.filling(size, mixture, ids=SpecialIds(300, 500, modes=(1, 2, 3)))
        builder = objective.examples()
        row = {"tokens": np.full(length + 1, 70, np.int32), "segments": np.ones(length + 1, np.int32)}
        made = builder(row, np.random.default_rng(0))
        assert len(made["encoder/tokens" if kind is MixtureOfDenoisers else "tokens"]) in (size, size - 1)
        with pytest.raises(UserError, match=rf"or data\.length={length}, the longest rows that fit"):
            builder.check(length + 3)


def test_spans_that_rows_are_too_short_for_are_told():
    objective = MixtureOfDenoisers.of(100, SEVEN)
    assert list(short_spans(objective, 424)) == []
    (note,) = short_spans(objective, 423)
    assert "spans of 64 tokens" in note and "15% (63) make one span: rows of config.data.length=424" in note
    assert len(list(short_spans(objective, 100))) == 2 and list(short_spans(NextToken(), 2)) == []


def test_a_stream_has_room_for_whatever_is_drawn():
    objective, length = PrefixMixtureOfDenoisers.filling(120, SEVEN)
    assert objective.stream == 120 < objective.inputs + objective.targets
    row = row_of("abcdefghij" * 20)
    build, longest = objective.examples(BYTES), 0
    for seed in range(100):
        made = build({name: x[: length + 1] for name, x in row.items()}, np.random.default_rng(seed))
        assert {x.shape for x in made.values()} == {(120,)}
        inputs, targets = build.pair({n: x[: length + 1] for n, x in row.items()}, np.random.default_rng(seed))
        assert made["targets"][made["weights"] > 0].tolist() == targets.tolist()
        longest = max(longest, int(made["segments"].sum()))
    assert longest in (119, 120)


def test_models_with_too_few_positions_are_refused():
    model = gpt2(layers=1, d_model=8, heads=2, vocab=384, context=64)
    model = NonCausal().model(model)
    check_needs(PrefixMixtureOfDenoisers.filling(64, SEVEN)[0], model)
    with pytest.raises(UserError, match="makes examples of 65 tokens, but the model has 64 positions"):
        check_needs(PrefixMixtureOfDenoisers.filling(65, SEVEN)[0], model)


@pytest.mark.parametrize("mixture", [SPANS, SPANS_AS_RUN, INFILLED, RESTORED, CAUSAL_TOO, CONTINUED])
def test_published_mixtures_are_stored_and_travel(mixture):
    objective = MixtureOfDenoisers.of(40, mixture)
    assert from_dict(to_dict(objective)) == objective
    build = objective.examples(BYTES)
    row = row_of("a sentence. another one, and more to come")
    row = {name: value[:41] for name, value in row.items()}
    one, two = (b(row, np.random.default_rng(3)) for b in (build, pickle.loads(pickle.dumps(build))))
    assert all((one[k] == two[k]).all() for k in one)


def test_errors_name_the_remedy():
    rng = np.random.default_rng(0)
    with pytest.raises(UserError, match=r"neither a mask nor sentinels.*reserved=\[MASK\]"):
        TextInfilling().spoiled(indices(9)._replace(mask=None), rng)
    with pytest.raises(UserError, match=r"where sentences begin.*data\.records\.sentences=lines"):
        SentencePermutation().spoiled(indices(9), rng)
    with pytest.raises(UserError, match="give 1 or more"):
        TextInfilling(0.3, 0.5)
    row = {name: x[:12] for name, x in row_of("abcdefghij" * 2).items()}
    with pytest.raises(UserError, match=r"no token for the mode 'CLM': add it to `modes`"):
        MixtureOfDenoisers.of(11, RESTORED, ids=SpecialIds(300, 50, modes=(1, 2, 3))).examples()(row, rng)
    with pytest.raises(
        UserError, match=r"of 11 tokens can become 15 in one stream: objective.stream=9 must .*length=5,"
    ):
        PrefixMixtureOfDenoisers.of(11, SPANS, stream=9).examples(BYTES)(row, rng)
    with pytest.raises(UserError, match="needs at least one noise"):
        Reconstruction(())
    with pytest.raises(UserError, match="least <= most"):
        Continuation(0.8, 0.2)
    with pytest.raises(UserError, match="between 0 and 1"):
        DroppedTokens(1.0)
    with pytest.raises(UserError, match=r"denoisers\[0\]\[2\]=.* must be Denoiser"):
        from_dict(to_dict(MixtureOfDenoisers.of(8, SPANS)) | {"denoisers": [[1.0, "", {"type": "TokenLoss"}]]}, "o")
    with pytest.raises(UserError, match="too few for the inputs of any row: give 3"):
        filling(SPANS, 2)
