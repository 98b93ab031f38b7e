import itertools
import json
from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lm.core.component import from_dict, to_dict
from lm.core.errors import UserError
from lm.objectives.denoising import MixtureOfDenoisers, PrefixMixtureOfDenoisers
from lm.objectives.examples.continuation import Continuation, PrefixLM
from lm.objectives.examples.denoiser import Original
from lm.objectives.examples.denoising import MODES, SpecialIds, largest
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
from lm.objectives.examples.published import SEVEN, SPANS
from lm.objectives.examples.spans import DroppedTokens, IIDCorruption, SpanCorruption
from lm.text.tokenizers import ByteTokenizer

BYTES = ByteTokenizer(extra_ids=1000)
SENTINELS = np.array([BYTES.sentinel(i) for i in range(BYTES.sentinels)])
FIRST = SENTINELS[0]

lengths = st.integers(2, 300)
seeds = st.integers(0, 2**32 - 1)
densities = st.floats(0.01, 0.99)
corruptions = st.builds(SpanCorruption, mean=st.floats(1, 70), density=densities)
shares = st.tuples(st.floats(0, 0.99), st.floats(0, 0.99)).map(sorted)
cuts = st.builds(PrefixLM, density=st.floats(0.01, 0.5)) | shares.map(lambda both: Continuation(*both))
denoisers = corruptions | st.builds(IIDCorruption, density=densities) | cuts
noises = st.sampled_from(
    (
        TokenMasking(0.3, 0.5),
        TokenDeletion(0.3),
        TextInfilling(),
        TextInfilling(0.9, 1.0, 0.5),
        SpanDeletion(),
        SentencePermutation(0.5),
        DocumentRotation(),
        Shuffling(),
    )
)
whole = st.lists(noises, min_size=1, max_size=3).map(lambda some: Reconstruction(tuple(some)))
dropped = st.builds(DroppedTokens, density=densities)
choices = st.tuples(st.floats(0.1, 5), st.sampled_from(("", *MODES)), denoisers | whole | dropped)
mixtures = st.lists(choices, min_size=1, max_size=4).map(tuple)


def text(length, seed=0):
    return np.random.default_rng(seed).integers(3, 259, length)


def row_of(tokens, length=None):
    """A packed row of one document: the tokens, padding up to `length`, or without any the first token of the next."""
    padding = (0, (length or len(tokens)) - len(tokens) + 1)
    constant = {"constant_values": int(length in (None, len(tokens)))}
    return {
        "tokens": np.pad(tokens, padding, **constant).astype(np.int32),
        "segments": np.pad(np.ones(len(tokens), np.int32), padding, **constant),
    }


def restored(inputs, targets):
    """The text: each span of the targets in its sentinel's place; without sentinels, targets come last."""
    if not (targets >= FIRST).any():
        return np.concatenate([inputs, targets])
    at = np.flatnonzero(targets >= FIRST)
    spans = {targets[i]: targets[i + 1 : j] for i, j in itertools.pairwise(at)}
    return np.concatenate([spans.get(token, [token]) for token in inputs])


# ----------------------------------------------------------------------------------------------------
# Denoisers


@given(denoisers, lengths, seeds)
def test_inputs_and_targets_hold_the_text_exactly(denoiser, length, seed):
    tokens = text(length, seed)
    inputs, targets = denoiser(Original(tokens, SENTINELS), np.random.default_rng(seed))
    assert restored(inputs, targets).tolist() == tokens.tolist()


@given(corruptions, lengths, seeds)
def test_numbers_of_noise_tokens_and_spans(corruption, length, seed):
    noise = min(max(round(length * corruption.density), 1), length - 1)
    spans = min(max(round(noise / corruption.mean), 1), length - noise)
    mask = corruption.noise_mask(length, np.random.default_rng(seed))
    starts = mask[1:] & ~mask[:-1]
    assert mask.shape == (length,) and mask.dtype == bool
    assert mask.sum() == noise and starts.sum() == spans
    assert not mask[0] and mask[-1]


@given(corruptions, lengths, seeds)
def test_sentinels_stand_in_order(corruption, length, seed):
    spans = corruption.counts(length)[1]
    inputs, targets = corruption(Original(text(length), SENTINELS), np.random.default_rng(seed))
    assert inputs[inputs >= FIRST].tolist() == SENTINELS[:spans].tolist()
    assert targets[targets >= FIRST].tolist() == SENTINELS[: spans + 1].tolist()
    assert targets[0] == SENTINELS[0] and targets[-1] == SENTINELS[spans]


def test_every_mask_is_equally_likely():
    corruption, rng, draws = SpanCorruption(2.0, 0.5), np.random.default_rng(0), 4000
    assert corruption.counts(8) == (4, 2)
    seen = Counter(corruption.noise_mask(8, rng).tobytes() for _ in range(draws))
    assert len(seen) == 9  # 3 ways to part 4 kept tokens in two, times 3 for the noise
    assert all(abs(n - draws / 9) < 5 * (draws / 9) ** 0.5 for n in seen.values())


def test_the_example_of_the_paper():
    words = ["Thank", "you", "for", "inviting", "me", "to", "your", "party", "last", "week"]
    tokens = np.arange(3, 3 + len(words))

    class Fixed(SpanCorruption):
        def noise_mask(self, length, rng):
            return np.array([w in ("for", "inviting", "last") for w in words])

    inputs, targets = Fixed()(Original(tokens, np.array([100, 99, 98])), np.random.default_rng(0))  # as T5, ids descend
    names = dict(zip(tokens.tolist(), words, strict=True)) | {100: "<X>", 99: "<Y>", 98: "<Z>"}
    assert " ".join(names[t] for t in inputs.tolist()) == "Thank you <X> me to your party <Y> week"
    assert " ".join(names[t] for t in targets.tolist()) == "<X> for inviting <Y> last <Z>"


@pytest.mark.parametrize("density", [0.25, 0.5])
def test_prefix_lm_cuts_uniformly(density):
    rng = np.random.default_rng(0)
    sizes = Counter(len(PrefixLM(density)(Original(text(41), SENTINELS), rng)[1]) for _ in range(4000))
    most = round(2 * density * 40)
    assert sorted(sizes) == list(range(1, most + 1))
    assert all(abs(n - 4000 / most) < 5 * (4000 / most) ** 0.5 for n in sizes.values())


# ----------------------------------------------------------------------------------------------------
# Mixtures


@given(mixtures, st.integers(2, 120), st.data())
def test_shapes_are_static_and_hold_the_worst_case(mixture, length, data):
    builder = MixtureOfDenoisers.of(length, mixture).examples(BYTES)
    real = data.draw(st.integers(0, length))  # the rest of the row is padding
    seed = data.draw(seeds)
    inputs, targets = builder.pair(row_of(text(real), length), np.random.default_rng(seed))
    example = builder(row_of(text(real), length), np.random.default_rng(seed))
    encoder = {f"encoder/{name}": (builder.inputs,) for name in ("tokens", "segments", "positions")}
    decoder = dict.fromkeys(("tokens", "targets", "weights", "segments", "positions"), (builder.targets,))
    assert {k: v.shape for k, v in example.items()} == encoder | decoder
    assert {k: v.dtype for k, v in example.items() if v.dtype != np.int32} == {"weights": np.float32}
    n, m = len(inputs), len(targets)
    assert (n == m == 0) if real < 2 else (n and m)
    assert example["encoder/tokens"].tolist() == [*inputs.tolist(), *[0] * (builder.inputs - n)]
    assert example["encoder/segments"].tolist() == [1] * n + [0] * (builder.inputs - n)
    assert example["encoder/positions"].tolist() == list(range(builder.inputs))
    assert example["targets"].tolist() == [*targets.tolist(), *[0] * (builder.targets - m)]
    assert example["tokens"].tolist() == [0, *targets.tolist()][:m] + [0] * (builder.targets - m)
    for name in ("weights", "segments"):
        assert example[name].tolist() == [1] * m + [0] * (builder.targets - m)


@given(mixtures, st.integers(2, 120), seeds)
def test_the_prefix_form_is_the_pair_in_one_stream(mixture, length, seed):
    row = row_of(text(length))
    builder = PrefixMixtureOfDenoisers.of(length, mixture).examples(BYTES)
    inputs, targets = builder.pair(row, np.random.default_rng(seed))
    example = builder(row, np.random.default_rng(seed))
    assert {v.shape for v in example.values()} == {(builder.inputs + builder.targets,)}
    stream = [*inputs.tolist(), *targets.tolist()]
    assert example["tokens"][: len(stream) - 1].tolist() == stream[:-1]
    assert example["targets"][: len(stream) - 1].tolist() == stream[1:]
    assert example["targets"][example["weights"] > 0].tolist() == targets.tolist()
    assert example["tokens"][example["prefix"]].tolist() == inputs.tolist()
    assert example["segments"].sum() == len(stream) - 1


@given(mixtures, st.integers(2, 200))
def test_a_shorter_row_needs_no_more(mixture, length):
    every = [largest(mixture, n) for n in range(2, length + 1)]
    assert all(a <= b for one, next_ in itertools.pairwise(every) for a, b in zip(one, next_, strict=True))


@given(seeds)
def test_an_example_depends_on_row_and_rng_alone(seed):
    builder, row = MixtureOfDenoisers.of(64).examples(BYTES), row_of(text(64))
    first, again = (builder(row, np.random.default_rng(seed)) for _ in range(2))
    assert all((first[k] == again[k]).all() for k in first)


@given(seeds)
def test_documents_of_a_row_are_corrupted_together(seed):
    """Only segment 0 is left out: a row's documents are one text, parted by their end-of-text tokens."""
    row = row_of(text(50), 64)
    several = row | {"segments": row["segments"] * np.repeat([1, 2, 3], [20, 20, 25]).astype(np.int32)}
    builder = MixtureOfDenoisers.of(64).examples(BYTES)
    one, other = (builder.pair(r, np.random.default_rng(seed)) for r in (row, several))
    assert all((a == b).all() for a, b in zip(one, other, strict=True))


def test_the_last_token_of_a_row_belongs_to_the_next_one():
    builder = MixtureOfDenoisers.of(20, SPANS).examples(BYTES)
    row = row_of(text(20))
    inputs, targets = builder.pair(row, np.random.default_rng(0))
    assert inputs[-1] == targets[-1] == BYTES.eos_id
    assert restored(inputs[:-1], targets[:-1]).tolist() == row["tokens"][:-1].tolist()
    running = row | {"overlaps": np.array(1)}  # of running text it is the first, of the one before
    inputs, targets = builder.pair(running, np.random.default_rng(0))
    assert restored(inputs[:-1], targets[:-1]).tolist() == row["tokens"][1:].tolist()


def test_denoisers_are_drawn_at_their_rates_and_named_by_their_mode():
    mixture = ((3.0, "R", SpanCorruption()), (1.0, "S", PrefixLM()), (2.0, "X", SpanCorruption(8.0, 0.5)))
    builder = MixtureOfDenoisers.of(60, mixture).examples(BYTES)
    rng, row, draws = np.random.default_rng(0), row_of(text(60)), 1200
    drawn = Counter()
    for _ in range(draws):
        example = builder(row, rng)
        drawn[int(example["encoder/tokens"][0])] += 1
        noise = int(((example["targets"] >= 3) & (example["targets"] < FIRST)).sum())
        mode = MODES[int(example["encoder/tokens"][0]) - int(SENTINELS[-3])]
        assert noise == {"R": 9, "X": 30}.get(mode, noise)
    for (rate, _, _), mode_id in zip(mixture, SENTINELS[-3:], strict=True):
        assert abs(drawn[int(mode_id)] / draws - rate / 6) < 0.04


def test_seven_denoisers_equally_mixed():
    assert Counter(mode for _, mode, _ in SEVEN) == {"R": 2, "S": 1, "X": 4}
    assert len({rate for rate, _, _ in SEVEN}) == 1
    builder = MixtureOfDenoisers.of(512).examples(ByteTokenizer())
    assert (builder.inputs, builder.targets) == (513, 343)
    assert builder.ids.sentinels == 122  # the last three of ByT5's 125 are the modes


@pytest.mark.parametrize("kind", [MixtureOfDenoisers, PrefixMixtureOfDenoisers])
def test_shapes_need_no_tokenizer(kind):
    made, shapes = (kind.of(64).examples(t)(row_of(text(64)), np.random.default_rng(0)) for t in (BYTES, None))
    assert {k: (v.shape, v.dtype) for k, v in made.items()} == {k: (v.shape, v.dtype) for k, v in shapes.items()}


@pytest.mark.parametrize("kind", [MixtureOfDenoisers, PrefixMixtureOfDenoisers])
def test_json_round_trip(kind):
    for objective in (kind.of(64), kind.of(64, ids=SpecialIds.of(BYTES, MODES))):
        assert from_dict(json.loads(json.dumps(to_dict(objective)))) == objective


def test_errors_name_the_knob_and_the_remedy():
    row, rng = row_of(text(64)), np.random.default_rng(0)
    with pytest.raises(UserError, match=r"64 tokens .* 65 inputs and 45 targets: objective.inputs=33"):
        MixtureOfDenoisers.of(32).examples(BYTES)(row, rng)
    with pytest.raises(UserError, match="can need 12 sentinels and the tokenizer has 7, modes aside"):
        MixtureOfDenoisers.of(64).examples(ByteTokenizer(extra_ids=10))(row, rng)
    with pytest.raises(UserError, match="modes take 3 sentinels, the tokenizer has 2"):
        MixtureOfDenoisers.of(64).examples(ByteTokenizer(extra_ids=2))
    with pytest.raises(UserError, match="mode 'r' is unknown"):
        MixtureOfDenoisers.of(32, ((1.0, "r", SpanCorruption()),))
    with pytest.raises(UserError, match=r"data\.length=2"):
        MixtureOfDenoisers.of(1)
    with pytest.raises(UserError, match="rate above 0"):
        MixtureOfDenoisers.of(32, ((0.0, "R", SpanCorruption()),))
    for bad in (lambda: SpanCorruption(0.5), lambda: SpanCorruption(3, 1.0), lambda: PrefixLM(0.6)):
        with pytest.raises(UserError, match="give"):
            bad()


def test_prefix_lm_alone_needs_no_sentinels():
    tokenizer = ByteTokenizer(extra_ids=0)
    builder = MixtureOfDenoisers.of(16, ((1.0, "", PrefixLM(0.5)),)).examples(tokenizer)
    inputs, targets = builder.pair(row_of(text(16)), np.random.default_rng(0))
    assert len(inputs) + len(targets) == 18
