"""Rows of several texts with hidden tokens: segments in another order, turns of dialogues."""

import json
from itertools import pairwise, permutations

import jax
import numpy as np
import pytest

from lm.core.ctx import Ctx
from lm.core.errors import UserError
from lm.data.batches import Batches
from lm.data.records.dialogues import Dialogues
from lm.data.sources import open_source
from lm.data.tokenize import build_cache
from lm.objectives.dialogues import MaskedDialogues
from lm.objectives.examples.reordering import classes_up_to, order_class
from lm.objectives.masked import MaskedTokens
from lm.objectives.objective import check_channels, check_needs
from lm.objectives.reordering import SentenceReordering
from lm.text.tokenizers import ByteTokenizer
from lm.zoo.bert import bert
from tests import toys
from tests.objectives.test_sentence_pairs import corpus

BYTES = ByteTokenizer().with_special(["[CLS]", "[SEP]", "[MASK]"])
CLS, SEP = map(BYTES.piece_id, ("[CLS]", "[SEP]"))
SHAPE = {"layers": 1, "d_model": 8, "heads": 2, "vocab": BYTES.vocab_size, "context": 120}


def batches(objective, cache, length):
    partners = objective.needs().partners
    return Batches(((cache, 1.0),), length, 4, 0, objective.examples(BYTES), partners=partners)


def texts(row):
    """As they were, and the token type of each."""
    targets, real = row["mlm/targets"], row["segments"] > 0
    assert targets[0] == CLS and targets[real][-1] == SEP and not row["mlm/weights"][~real].any()
    assert not row["mlm/weights"][np.isin(targets, (CLS, SEP))].any()
    ends = np.flatnonzero(real & (targets == SEP))
    starts = [1, *(ends[:-1] + 1)]
    kinds = [set(row["types"][i : end + 1].tolist()) for i, end in zip(starts, ends, strict=True)]
    assert all(len(kind) == 1 for kind in kinds)
    return [targets[i:end] for i, end in zip(starts, ends, strict=True)], [kind.pop() for kind in kinds]


def test_every_order_has_a_class_of_its_own():
    orders = [np.array(order) for n in (1, 2, 3, 4) for order in permutations(range(n))]
    assert [order_class(order) for order in orders] == list(range(33)) == list(range(classes_up_to(4)))


def test_segments_are_put_back_by_the_class():
    """Tokens of a document count up, so that segments in their order do."""
    made = batches(SentenceReordering(), corpus(sentences=9), 120)
    orders = [order for n in (1, 2, 3) for order in permutations(range(n))]
    seen, told = set(), 0
    for row in map(made.row, range(120)):
        parts, types = texts(row)
        label = int(row["reordering/targets"])
        assert len(parts) == len(orders[label]) and set(types) == {0}
        told += int(row["reordering/weights"])
        seen.add(label)
        back = np.concatenate([parts[i] for i in np.argsort(orders[label])])
        assert ((np.diff(back) % 20) == 1).all()
        assert row["mlm/weights"].sum() == max(1, round(0.15 * len(back)))
    assert seen == set(range(9)) and told > 110


@pytest.mark.parametrize("length", [7, 14, 30])
def test_segments_are_cut_to_fit(length):
    made = batches(SentenceReordering(), corpus(sentences=9), length)
    for row in map(made.row, range(40)):
        parts, _ = texts(row)
        assert all(map(len, parts)) and sum(map(len, parts)) + len(parts) + 1 <= length


def test_a_document_of_one_sentence_has_no_order():
    row = batches(SentenceReordering(), corpus(sentences=1), 20).row(0)
    assert not row["reordering/weights"] and row["mlm/weights"].any()


@pytest.fixture(scope="module")
def talks(tmp_path_factory):
    """Dialogues of 1 to 6 turns, each with words of its own; what a system says is no turn."""
    folder = tmp_path_factory.mktemp("talks")
    written = [[f"{chr(97 + i)}{k} {'asks' if k % 2 == 0 else 'answers'}" for k in range(1 + i % 6)] for i in range(24)]
    lines = []
    for i, said in enumerate(written):
        turns = [{"role": ("user", "assistant")[k % 2], "content": text} for k, text in enumerate(said)]
        lines.append({"messages": [{"role": "system", "content": "be kind"}, *turns] if i % 2 else turns})
    lines.append({"messages": [{"role": "system", "content": "be kind"}]})
    (folder / "talks.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    cache = build_cache(
        open_source(folder / "talks.jsonl", fields=Dialogues().fields("")),
        BYTES,
        folder,
        records=Dialogues(),
        workers=1,
    )
    return cache, written


def test_half_of_the_dialogues_have_a_turn_of_another(talks):
    cache, written = talks
    turns = [turn for said in written for turn in said]
    made = batches(MaskedDialogues(), cache, 60)
    check_channels(MaskedDialogues(), "talks", cache)
    wrong = []
    for row in map(made.row, range(300)):
        parts, types = texts(row)
        said = [BYTES.decode(part) for part in parts]
        whole = [text for text in said if text in turns]  # rows may begin within a turn
        assert len(whole) >= len(said) - 2
        strange = len({text[0] for text in whole}) > 1
        if not row["dialogue/weights"]:
            assert len(said) == 1 and not row["dialogue/targets"]
            continue
        assert 2 <= len(said) <= 3 and strange <= int(row["dialogue/targets"])
        wrong.append(int(row["dialogue/targets"]))
        if not wrong[-1]:
            assert all(a != b for a, b in pairwise(types))
            assert all(("answers" in text) == kind for text, kind in zip(said, types, strict=True) if text in whole)
    assert abs(np.mean(wrong) - 0.5) < 4 * 0.5 / len(wrong) ** 0.5


def test_their_heads_fit_and_train():
    objective = SentenceReordering(MaskedTokens(predictions=20))
    model = bert(**SHAPE, pretraining=("mlm", "reordering"))
    check_needs(objective, model)
    check_needs(MaskedDialogues(), bert(**SHAPE, pretraining=("mlm", "dialogue")))
    with pytest.raises(UserError, match=r"SentenceReordering has 33 classes, and model\.head 9 outputs"):
        check_needs(SentenceReordering(segments=4), model)
    params = toys.values(model.spec())
    batch = {k: v for k, v in batches(objective, corpus(), 40).batch(0).items() if k != "bytes"}
    gradient = jax.jit(jax.grad(lambda p: objective(model, p, batch, Ctx()).total))(params)
    assert all(np.abs(leaf).max() > 0 for leaf in jax.tree.leaves(gradient["head"]))


def test_wrong_knobs_are_told():
    with pytest.raises(UserError, match="segments=1 to put in order: give 2 to 7"):
        SentenceReordering(segments=1)
    with pytest.raises(UserError, match="turns=1 of a dialogue"):
        MaskedDialogues(turns=1)
    with pytest.raises(UserError, match="rows of 6 tokens have no room for 3 texts"):
        batches(SentenceReordering(), corpus(), 6).row(0)
