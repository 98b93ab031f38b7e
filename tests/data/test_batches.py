import dataclasses
from pathlib import Path

import numpy as np
import pytest
from absl import flags
from hypothesis import given, settings
from hypothesis import strategies as st

from lm.core.errors import UserError
from lm.data.batches import Batches
from lm.data.cache import TokenCache
from lm.data.eval_batches import EvalBatches
from lm.data.mixture import Mixture
from lm.data.packing import BestFitRows, ConcatenatedRows, evaluation_rows
from lm.data.sources import open_source
from lm.data.tokenize import build_cache
from lm.objectives.denoising import MixtureOfDenoisers
from lm.objectives.examples.builder import Covered
from lm.text.tokenizers import ByteTokenizer


def cache_of(*lengths):
    """Documents of these lengths in which token number i is i, so that a token tells its place."""
    tokens = np.arange(sum(lengths), dtype=np.uint16)
    offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
    half = int(offsets[len(lengths) // 2])
    return TokenCache(
        Path("nowhere"), (tokens[:half], tokens[half:]), offsets, bytes=len(tokens), dropped=0, digest=str(lengths)
    )


def batches_of(cache, *args, **knobs):
    """Of a corpus by itself."""
    return Batches(((cache, 1.0),), *args, **knobs)


CORPORA = st.lists(st.integers(1, 12), min_size=1, max_size=8).map(lambda lengths: cache_of(*lengths))


def same(a, b):
    return a.keys() == b.keys() and all(np.array_equal(a[key], b[key]) for key in a)


def noisy(row, rng):
    return {**row, "noise": rng.integers(1 << 30, size=3)}


def targets(batch):
    return batch["tokens"][..., 1:][batch["segments"][..., 1:] > 0]


@given(CORPORA, st.integers(1, 20), st.integers(-50, 50))
def test_rows_are_pieces_of_the_circle(cache, length, shift):
    total = cache.size
    if total < length:
        return
    rows = ConcatenatedRows(cache, length, shift)
    for i in range(len(rows)):
        expected = (np.arange(length + 1) + shift + i * length) % total
        np.testing.assert_array_equal(rows[i]["tokens"], expected)
        starts = np.isin(expected, cache.offsets[:-1])
        starts[0] = True
        np.testing.assert_array_equal(rows[i]["segments"], np.cumsum(starts))


@given(CORPORA, st.integers(1, 20))
def test_evaluation_counts_every_token_once(cache, length):
    rows = evaluation_rows(cache, length)
    found = np.concatenate([targets(rows[i]) for i in range(len(rows))])
    np.testing.assert_array_equal(found, np.arange(cache.size))
    assert all(not rows[i]["tokens"][rows[i]["segments"] == 0].any() for i in range(len(rows)))


@settings(max_examples=20)  # grain shuffles an epoch of few rows as slowly as one of 65536
@given(CORPORA, st.integers(1, 9), st.integers(1, 5), st.integers(0, 2**40))
def test_an_epoch_predicts_every_token_once_but_the_remainder(cache, length, batch_size, seed):
    total = cache.size
    if total < length:
        return
    batches = batches_of(cache, length, batch_size, seed)
    rows = batches.rows_per_epoch[0]
    assert rows == total // length
    steps = [batches.batch(k) for k in range(-(-3 * rows // batch_size))]
    tokens = np.concatenate([step["tokens"] for step in steps])
    for epoch in range(3):
        seen = tokens[epoch * rows : (epoch + 1) * rows, 1:].ravel()
        assert len(np.unique(seen)) == len(seen) == rows * length > total - length


@settings(max_examples=20)
@given(
    cache=st.just(cache_of(*[30, 7, 50, 1, 12] * 30)),
    start=st.integers(0, 30),
    cut=st.integers(1, 5),
    skips=st.lists(st.tuples(st.integers(0, 30), st.integers(1, 99)), max_size=3).map(tuple),
)
def test_a_batch_is_the_same_however_it_is_reached(cache, start, cut, skips):
    batches = batches_of(cache, 8, 6, seed=3, example=noisy, skips=skips)
    iterator = batches.iterate(start, threads=2)
    for k in range(start, start + 5):
        batch = batches_of(cache, 8, 6, seed=3, example=noisy, skips=skips).batch(k)
        assert same(batch, next(iterator))
        parts = [batches.batch(k, rows) for rows in (slice(cut), slice(cut, None))]
        assert same(batch, {key: np.concatenate([p[key] for p in parts]) for key in batch})


def test_slices_reach_the_iterator():
    batches = batches_of(cache_of(100), 8, 6, seed=0)
    assert same(next(batches.iterate(2, rows=slice(1, 3))), batches.batch(2, slice(1, 3)))


def test_worker_processes_see_the_same_stream(tmp_path, monkeypatch):
    """Where they have no JAX: examples are made by numpy alone."""
    if not flags.FLAGS.is_parsed():
        flags.FLAGS.mark_as_parsed()
    (tmp_path / "jax.py").write_text("raise ImportError('a data worker imports jax')")
    monkeypatch.syspath_prepend(tmp_path)  # workers take over the path; here jax is imported already
    file = tmp_path / "a.txt"
    file.write_text("some lines of text\n" * 100)
    cache = build_cache(open_source(file), ByteTokenizer(), tmp_path)
    denoising = MixtureOfDenoisers.of(32).examples(ByteTokenizer())
    batches = batches_of(cache, 32, 4, seed=0, example=Covered(denoising, np.ones(384)))
    batches.batch(0)  # what a batch has cached travels, or stays
    iterator = batches.iterate(5, workers=1)
    assert all(same(next(iterator), batches.batch(k)) for k in range(5, 12))


def test_epochs_and_seeds_differ():
    cache = cache_of(*[10] * 50)
    by_seed = [batches_of(cache, 8, cache.size // 8, seed) for seed in (0, 1)]
    epochs = [batches.batch(k)["tokens"] for batches in by_seed for k in range(3)]
    for i, a in enumerate(epochs):
        for b in epochs[:i]:
            assert not np.array_equal(np.sort(a[:, 0]), np.sort(b[:, 0]))  # other boundaries
            assert not np.array_equal(np.argsort(a[:, 0]), np.argsort(b[:, 0]))  # another order


def test_noise_differs_between_rows_epochs_and_seeds():
    cache = cache_of(40)
    draws = [batches_of(cache, 10, 4, seed, example=noisy).batch(k)["noise"] for seed in (0, 1) for k in range(3)]
    assert len(np.unique(np.concatenate(draws), axis=0)) == 24


def test_a_skip_passes_over_batches():
    plain = batches_of(cache_of(100), 8, 2, seed=0)
    skipping = batches_of(cache_of(100), 8, 2, seed=0, skips=((3, 2), (5, 4)))
    addresses = [0, 1, 2, 5, 6, 11, 12]
    assert all(same(skipping.batch(k), plain.batch(n)) for k, n in enumerate(addresses))
    assert skipping.fingerprint != plain.fingerprint == batches_of(cache_of(100), 8, 2, seed=0).fingerprint


@given(CORPORA, st.integers(1, 20), st.integers(1, 5))
def test_evaluation_batches(cache, length, batch_size):
    batches = EvalBatches((cache,), length, batch_size, noisy)
    steps = list(batches)
    assert len(steps) == len(batches) == -(-cache.size // (length * batch_size))
    assert all(step["tokens"].shape == (batch_size, length + 1) for step in steps)
    np.testing.assert_array_equal(np.concatenate([targets(s) for s in steps]), np.arange(cache.size))
    assert all(same(a, b) for a, b in zip(steps, batches, strict=True))  # masks stay
    assert same(batches.batch(0, slice(0, 1)), {key: value[:1] for key, value in steps[0].items()})
    with pytest.raises(IndexError):
        batches.batch(len(batches))


def test_too_little_text():
    message = "has 7 tokens, fewer than one sequence of 8; give more text or a shorter sequence length"
    with pytest.raises(UserError, match=message):
        batches_of(cache_of(3, 4), 8, 2, seed=0)
    assert len(EvalBatches((cache_of(3, 4),), 8, 2)) == 1  # padded


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"length": 0}, "sequence length is 0"),
        ({"batch_size": 0}, "batch size is 0"),
        ({"seed": -1}, "seed is -1"),
        ({"packing": "bestfit"}, "unknown packing 'bestfit'; did you mean 'best-fit'"),
        ({"batch_warmup": ((1, 2),)}, "steps must rise, and the first be 0"),
        ({"batch_size": 4, "accumulate": 2, "batch_warmup": ((0, 3),)}, "3 rows: give a multiple of 2"),
    ],
)
def test_wrong_numbers(wrong, message):
    with pytest.raises(UserError, match=message):
        batches_of(cache_of(10), **{"length": 4, "batch_size": 2, "seed": 0, **wrong})


def test_an_error_in_an_example_reaches_the_reader():
    def broken(row, rng):
        raise UserError("no such mask")

    with pytest.raises(UserError, match="no such mask"):
        next(batches_of(cache_of(10), 4, 2, seed=0, example=broken).iterate())


def test_a_mixture_takes_each_sources_rows_in_order_of_its_own():
    a, b = cache_of(40), cache_of(*[5] * 12)
    mixed = Batches(((a, 0.3), (b, 0.7)), 5, 4, seed=1, example=noisy)
    rows = [mixed.row(n) for n in range(60)]
    for i in range(2):
        alone = Batches(((a, 1.0), (b, 1e-9)) if i == 0 else ((a, 1e-9), (b, 1.0)), 5, 4, seed=1, example=noisy)
        own = [row for n, row in enumerate(rows) if Mixture((0.3, 0.7)).locate(n)[0] == i]
        assert len(own) == (18, 42)[i]
        assert all(same(row, alone.row(n)) for n, row in enumerate(own))
    assert mixed.rows_per_epoch == (8, 12)


@given(
    parts=st.integers(1, 4),
    unit=st.integers(1, 3),
    ramp=st.lists(st.tuples(st.integers(1, 6), st.integers(1, 4)), max_size=3),
)
def test_a_batch_warm_up_takes_the_rows_in_order(parts, unit, ramp):
    cache, size = cache_of(*[9] * 200), parts * unit
    at = np.cumsum([0] + [steps for steps, _ in ramp])[:-1].tolist()
    warmup = tuple((a, min(full, parts) * unit) for a, (_, full) in zip(at, ramp, strict=True))
    batches = batches_of(cache, 3, size, seed=0, batch_warmup=warmup, accumulate=parts)
    n = 0
    for k in range(20):
        batch = batches.batch(k)
        assert batch["tokens"].shape == (size, 4)
        real = np.flatnonzero(batch["segments"][:, 0])
        assert len(real) == batches.rows_of(k)
        full = len(real) // unit
        assert set(real % parts) == set(range(full)), "full microbatches first"
        order = sorted(real, key=lambda place: (place // parts, place % parts))
        for place in order:
            assert np.array_equal(batch["tokens"][place], batches.row(n)["tokens"])
            n += 1


def test_rows_by_number():
    batches = batches_of(cache_of(100), 8, 6, seed=0)
    assert same(batches.batch(3, [1, 4]), {k: v[[1, 4]] for k, v in batches.batch(3).items()})


def test_best_fit_batches_hold_whole_documents(tmp_path):
    file = tmp_path / "a.jsonl"
    file.write_text("".join(f'{{"text": "{"x" * (n % 9)}{n:02d}"}}\n' for n in range(60)))
    cache = build_cache(open_source(file), ByteTokenizer(), tmp_path)
    batches = batches_of(cache, 15, 4, seed=0, packing="best-fit")
    rows = batches.rows_per_epoch[0]
    orders = []
    for epoch in range(2):
        ends = [batches.row(n) for n in range(epoch * rows, (epoch + 1) * rows)]
        documents = [
            ByteTokenizer().decode(row["tokens"][row["segments"] == s])
            for row in ends
            for s in range(1, row["segments"].max() + 1)
        ]
        assert sorted(documents) == sorted(open_texts(cache))
        orders.append(documents)
    assert orders[0] != orders[1]
    assert rows == len(BestFitRows(cache, 15))


def open_texts(cache):
    return [ByteTokenizer().decode(cache.read(a, b)) for a, b in zip(cache.offsets, cache.offsets[1:], strict=False)]


def test_a_reshuffle_permutes_what_is_left_of_each_epoch():
    batches = batches_of(cache_of(9, 8, 7, 40), length=5, batch_size=3, seed=2)
    (n,) = batches.rows_per_epoch
    first = batches.rows_by(2)
    again = dataclasses.replace(batches, reshuffles=(first,))
    twice = dataclasses.replace(again, reshuffles=(first, again.rows_by(1)))
    rows = [[tuple(b.row(i)["tokens"]) for i in range(3 * n)] for b in (batches, again, twice)]
    assert first == (6,) and n > 6
    assert rows[0][:6] == rows[1][:6] and rows[1][:3] == rows[2][:3]
    for epoch in range(0, 3 * n, n):
        of = [r[epoch : epoch + n] for r in rows]
        assert sorted(of[0]) == sorted(of[1]) == sorted(of[2]), "no row is lost, none comes twice"
        assert of[0] != of[1] != of[2]
