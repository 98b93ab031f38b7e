"""Pairs of texts: real documents and sentences, half of them wrong, and hidden tokens in them."""

import json
from itertools import pairwise
from pathlib import Path

import jax
import numpy as np
import pytest
from absl import flags
from hypothesis import given, settings
from hypothesis import strategies as st

from lm.core.ctx import Ctx
from lm.core.errors import UserError
from lm.data.batches import Batches
from lm.data.cache import TokenCache
from lm.data.eval_batches import EvalBatches
from lm.data.records.documents import Documents
from lm.data.sources import open_source
from lm.data.tokenize import build_cache
from lm.objectives.examples.hiding import WholeWords
from lm.objectives.joint import JointLoss
from lm.objectives.masked import MaskedSpans, MaskedTokens
from lm.objectives.objective import check_channels, check_needs
from lm.objectives.sentence_pairs import MaskedPairs
from lm.text.tokenizers import ByteTokenizer
from lm.zoo.bert import bert
from tests import toys

BYTES = ByteTokenizer().with_special(["[CLS]", "[SEP]", "[MASK]"])
CLS, SEP, MASK = map(BYTES.piece_id, ("[CLS]", "[SEP]", "[MASK]"))
FIRST_ID = 3  # of bytes
ORDER = MaskedPairs(relation="order")


def corpus(documents: int = 12, sentences: int = 9, seed: int = 0) -> TokenCache:
    """Documents, each of tokens of its own, of sentences of 2 to 7 tokens that count up."""
    rng = np.random.default_rng(seed)
    tokens, starts, offsets = [], [], [0]
    for document in range(documents):
        sizes = rng.integers(2, 8, rng.integers(max(1, sentences - 4), sentences + 1))
        n = int(sizes.sum())
        tokens += [FIRST_ID + 20 * document + i % 20 for i in range(n)] + [BYTES.eos_id]
        starts += [int(i in np.cumsum(sizes) - sizes) for i in range(n)] + [0]
        offsets.append(len(tokens))
    made = np.array(tokens, np.uint16)
    return TokenCache(
        Path("nowhere"),
        (made,),
        np.array(offsets, np.int64),
        bytes=len(made),
        dropped=0,
        digest="pairs",
        channels={"sentence": (np.array(starts, np.int8),)},
    )


def batches(objective: MaskedPairs, cache: TokenCache | None = None, length: int = 40, **more) -> Batches:
    needs = objective.needs()
    return Batches(
        ((cache or corpus(), 1.0),),
        length,
        4,
        0,
        objective.examples(BYTES),
        copies=needs.copies,
        partners=needs.partners,
        **more,
    )


def texts(row: dict) -> tuple[np.ndarray, np.ndarray]:
    """A and B as they were, from a row whose hidden tokens are filled in."""
    targets, real = row["mlm/targets"], row["segments"] > 0
    types = row["types"]
    assert targets[0] == CLS and targets[real][-1] == SEP
    a, b = targets[real & (types == 0)], targets[real & (types == 1)]
    assert a[-1] == SEP and (len(b) == 0 or b[-1] == SEP)
    assert np.count_nonzero(targets[real] == SEP) == 1 + (len(b) > 0)
    return a[1:-1], b[:-1]


def document(text: np.ndarray) -> int:
    (found,) = {(int(token) - FIRST_ID) // 20 for token in text}
    return found


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10**6), st.integers(12, 60), st.sampled_from(["next", "order"]))
def test_pairs_are_of_real_documents_and_sentences(seed, length, relation):
    cache = corpus(seed=seed % 5)
    made = batches(MaskedPairs(relation=relation), cache, length)
    after = {
        (int(a), int(b)) for a, b in zip(cache.read(0, cache.size)[:-1], cache.read(0, cache.size)[1:], strict=True)
    }
    for n in range(seed % 50, seed % 50 + 10):
        row = made.row(n)
        a, b = texts(row)
        assert len(row["tokens"]) == length and len(a) + len(b) + 3 <= length
        label, told = int(row["nsp/targets"]), bool(row["nsp/weights"])
        assert told == (len(b) > 0) and (told or not label)
        of_a = document(a)
        if told and relation == "next":
            assert (document(b) != of_a) == bool(label)
        if told and relation == "order":
            assert document(b) == of_a
        for text in (a, b):
            assert all((int(x), int(y)) in after for x, y in pairwise(text))
        hidden = row["mlm/weights"] > 0
        assert not np.isin(row["mlm/targets"][hidden], (CLS, SEP, 0, BYTES.eos_id)).any()
        assert hidden.sum() == max(1, round(0.15 * (len(a) + len(b))))
        np.testing.assert_array_equal(row["tokens"][~hidden], row["mlm/targets"][~hidden])
        real = row["segments"] > 0
        np.testing.assert_array_equal(row["positions"][real], np.arange(real.sum()))
        assert not row["types"][~real].any() and not row["mlm/weights"][~real].any()


@pytest.mark.parametrize("relation", ["next", "order"])
def test_half_of_the_pairs_are_wrong_and_short_ones_are_short(relation):
    made = batches(MaskedPairs(relation=relation, short=0.0), corpus(sentences=40))
    rows = [made.row(n) for n in range(600)]
    told = [row for row in rows if row["nsp/weights"]]
    assert len(told) > 450
    wrong = np.mean([row["nsp/targets"] for row in told])
    assert abs(wrong - 0.5) < 4 * 0.5 / len(told) ** 0.5
    short = batches(MaskedPairs(relation=relation, short=1.0), corpus(sentences=40))
    assert np.mean([(short.row(n)["segments"] > 0).mean() for n in range(200)]) < 0.9 * np.mean(
        [(row["segments"] > 0).mean() for row in rows]
    )


def test_pairs_of_every_distance_come_as_often_and_are_as_long():
    """In tokens of a document, which count up to 20: texts are apart if what lies between is not."""
    made = batches(MaskedPairs(relation="distance", short=0.0), corpus(sentences=40), length=30)
    rows = [row for row in map(made.row, range(900)) if row["nsp/weights"]]
    found = [[row for row in rows if row["nsp/targets"] == k] for k in range(3)]
    lengths = [np.mean([len(np.concatenate(texts(row))) for row in those]) for those in found]
    assert all(abs(len(those) / len(rows) - 1 / 3) < 4 * 0.5 / len(rows) ** 0.5 for those in found)
    assert np.ptp(lengths) < 3
    for label, those in enumerate(found):
        for row in those:
            a, b = texts(row)
            assert (document(a) != document(b)) == (label == 2)
    made = batches(MaskedPairs(relation="distance"), corpus(sentences=6), length=120)  # nothing is cut
    for row in filter(lambda row: row["nsp/weights"] and row["nsp/targets"] < 2, map(made.row, range(60))):
        a, b = texts(row)
        assert ((int(b[0]) - int(a[-1])) % 20 == 1) == (row["nsp/targets"] == 0)


def test_what_follows_begins_where_the_first_text_ends():
    """But where pairs are cut to fit; here there is room."""
    made = batches(ORDER, corpus(sentences=6), length=120)
    joined = [texts(row) + (int(row["nsp/targets"]),) for row in map(made.row, range(60)) if row["nsp/weights"]]
    assert len(joined) > 30
    for a, b, swapped in joined:
        a, b = (b, a) if swapped else (a, b)
        assert (int(b[0]) - int(a[-1])) % 20 == 1
    sentence = corpus(sentences=6).channels["sentence"][0]
    starts = {int(token) for token in corpus(sentences=6).read(0, len(sentence))[np.flatnonzero(sentence)]}
    assert all(int((a if swapped else b)[0]) in starts for a, b, swapped in joined)


def test_a_document_of_one_sentence_makes_no_pair():
    made = batches(ORDER, corpus(sentences=1), length=20)
    row = made.row(0)
    assert not row["nsp/weights"] and row["mlm/weights"].any() and not row["types"].any()


def test_pairs_are_the_same_in_every_evaluation():
    held_out = EvalBatches((corpus(),), 40, 4, MaskedPairs().examples(BYTES), partners=1)
    first, again, last = (held_out.batch(k) for k in (0, 0, len(held_out) - 1))
    assert all(np.array_equal(first[name], again[name]) and last[name].shape == first[name].shape for name in first)


@pytest.mark.slow
def test_pairs_are_the_same_by_any_number_of_workers(tmp_path):
    if not flags.FLAGS.is_parsed():
        flags.FLAGS.mark_as_parsed()
    file = tmp_path / "texts.jsonl"
    file.write_text("".join(json.dumps({"text": f"Text {i}. It goes on. And ends." * 3}) + "\n" for i in range(40)))
    cache = build_cache(open_source(file), BYTES, tmp_path, records=Documents("punctuation"), workers=1)
    made = batches(MaskedPairs(MaskedTokens(hiding=WholeWords(), copies=3)), cache)
    for workers in (1, 2):
        stream = made.iterate(7, workers=workers)
        for k in range(7, 13):
            alone = made.batch(k)
            assert all(np.array_equal(alone[name], value) for name, value in next(stream).items())


def test_copies_repeat_rows_and_masks_in_another_order():
    objective = MaskedTokens(copies=2)
    made = Batches(((corpus(), 1.0),), 16, 4, 0, objective.examples(BYTES), copies=2)
    (rows,) = made.rows_per_epoch

    def epoch(e: int) -> list[bytes]:
        return [made.row(e * rows + i)["tokens"].tobytes() for i in range(rows)]

    first, second, third, fourth = map(epoch, range(4))
    assert sorted(first) == sorted(third) and sorted(second) == sorted(fourth)
    assert first != third and sorted(first) != sorted(second)
    dynamic = Batches(((corpus(), 1.0),), 16, 4, 0, objective.examples(BYTES))
    assert made.fingerprint != dynamic.fingerprint


def test_streams_without_partners_are_as_before():
    """Partners are drawn by bits of their own."""
    objective = MaskedTokens()
    alone = Batches(((corpus(), 1.0),), 16, 4, 0, objective.examples(BYTES))
    beside = Batches(((corpus(), 1.0),), 16, 4, 0, objective.examples(BYTES), partners=2)
    assert all(np.array_equal(alone.batch(5)[name], beside.batch(5)[name]) for name in alone.batch(5))
    raw = Batches(((corpus(), 1.0),), 16, 4, 0, partners=2).batch(5)
    for k in range(2):
        other = {(int(t) - FIRST_ID) // 20 for t in raw[f"partner{k}/tokens"][0] if t >= FIRST_ID}
        own = {(int(t) - FIRST_ID) // 20 for t in raw["tokens"][0] if t >= FIRST_ID}
        assert other and not other & own


def test_the_losses_of_bert_and_spanbert_train_every_parameter():
    shape = {"layers": 1, "d_model": 8, "heads": 2, "vocab": BYTES.vocab_size, "context": 40}
    batch = {k: v for k, v in batches(MaskedPairs(MaskedTokens(predictions=7))).batch(0).items() if k != "bytes"}
    spans = MaskedSpans()
    row = {"tokens": FIRST_ID + np.arange(41) % 7 + 32 - 3, "segments": np.ones(41, np.int32)}
    row["tokens"][::4] = BYTES.encode(" ")[0]
    made = [spans.examples(BYTES)(row, np.random.default_rng(i)) for i in range(2)]
    rows = {name: np.stack([one[name] for one in made]) for name in made[0]}
    for objective, given_batch, heads in ((MaskedPairs(), batch, ("mlm", "nsp")), (spans, rows, ("mlm", "sbo"))):
        model = bert(**shape, pretraining=heads)
        check_needs(objective, model)
        params = toys.values(model.spec())

        def mean(p, objective=objective, model=model, batch=given_batch):
            loss = objective(model, p, batch, Ctx())
            return loss.total / loss.weight, loss.metrics

        gradient, metrics = jax.jit(jax.grad(mean, has_aux=True))(params)
        own = [float(metrics[f"{name}/loss"].value) for name in heads]
        np.testing.assert_allclose(float(metrics["loss"].value), sum(own), rtol=1e-5)
        assert all(np.abs(leaf).max() > 0 for name in heads for leaf in jax.tree.leaves(gradient["head"][name]))


def test_the_loss_of_predicted_positions_is_that_of_all():
    model = bert(layers=1, d_model=8, heads=2, vocab=BYTES.vocab_size, context=16)
    params = toys.values(model.spec())
    losses = []
    for predictions in (0, 5):
        objective = MaskedTokens(predictions=predictions)
        batch = Batches(((corpus(), 1.0),), 16, 4, 0, objective.examples(BYTES)).batch(0)
        losses.append(objective(model, params, {k: v for k, v in batch.items() if k != "bytes"}, Ctx()))
    np.testing.assert_allclose(losses[0].total, losses[1].total, rtol=1e-5)
    assert losses[0].weight == losses[1].weight > 0


def test_what_is_missing_is_told():
    plain = TokenCache(Path("nowhere"), (np.zeros(9, np.uint16),), np.array([0, 9]), bytes=9, dropped=0, digest="")
    with pytest.raises(UserError, match=r"reads the channel 'sentence' .*set config\.data\.records\.sentences=lines"):
        check_channels(MaskedPairs(), "a.txt", plain)
    with pytest.raises(UserError, match="only one document here"):
        batches(MaskedPairs(), corpus(1))
    with pytest.raises(UserError, match="packing='stream' goes on row by row"):
        batches(MaskedPairs(), packing="stream")
    with pytest.raises(UserError, match=r"no \[CLS\] to put around pairs .*config\.data\.reserved="):
        MaskedPairs().examples(ByteTokenizer())
    with pytest.raises(UserError, match=r"rows of 4 tokens have no room for 2 texts.*config\.data\.length"):
        batches(MaskedPairs(), length=4).row(0)
    with pytest.raises(UserError, match="has 1 heads: give two"):
        MaskedPairs(loss=JointLoss((("mlm", 1.0),)))
    with pytest.raises(UserError, match="trains the heads mlm, nsp"):
        check_needs(MaskedPairs(), bert(layers=1, d_model=8, heads=2, vocab=BYTES.vocab_size, context=16))
    model = bert(layers=1, d_model=8, heads=2, vocab=BYTES.vocab_size, context=16, pretraining=("mlm", "nsp"))
    with pytest.raises(UserError, match=r"MaskedPairs has 3 classes, and model\.head 2 outputs"):
        check_needs(MaskedPairs(relation="distance"), model)
