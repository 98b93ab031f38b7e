"""Labelled records: from files to rows, examples and losses; and what is wrong with them."""

import json

import jax
import numpy as np
import pytest

from lm.core.ctx import Ctx
from lm.core.errors import UserError
from lm.core.rows import check_keys
from lm.data.open import open_data
from lm.data.record_rows import packed
from lm.data.records.documents import Documents
from lm.data.records.labelled import Answers, Labelled, Tagged
from lm.data.sources import open_source
from lm.data.tokenize import build_cache
from lm.model.heads import SequenceClassifier, TokenClassifier
from lm.model.transformer import with_head
from lm.objectives.labels import AnswerSpans, Classification, Regression, TokenClassification
from lm.objectives.objective import check_channels, check_needs, check_packing
from lm.text.format import TextFormat
from lm.text.tokenizers import ByteTokenizer
from lm.zoo.bart import bart
from lm.zoo.bert import bert
from lm.zoo.gpt2 import gpt2
from tests import toys

BYTES = ByteTokenizer()
CLS, SEP, EOS = BYTES.pad_id, 7, BYTES.eos_id
FORMAT = TextFormat(BYTES, (EOS,), before=(CLS,), after=(SEP,))
PLAIN = TextFormat.of(BYTES, None, reads=False)


def cached(folder, records, *rows, text=FORMAT):
    folder.mkdir(exist_ok=True)
    file = folder / "rows.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    source = open_source(file, "validation", validation=file, fields=records.fields("text"))
    return build_cache(source, BYTES, folder / "cache", before=text.before, records=records, text=text, workers=1)


def example(objective, cache, length=24, packing="one", i=0, **knobs):
    rows = packed(cache, length, packing, **knobs)
    return objective.examples(BYTES)(rows[i], np.random.default_rng(0))


def read(made, key="tokens"):
    return made[key][made["segments"] > 0].tolist()


def test_one_text_or_two_with_a_class(tmp_path):
    a, b = BYTES.encode("ab").tolist(), BYTES.encode("c").tolist()
    row = {"x": "ab", "y": "c", "label": "no"}
    names = {"labels": ("yes", "no")}
    for name, records, text, ids, types in (
        ("one", Labelled("{x}", **names), FORMAT, [CLS, *a, SEP], [0] * 4),
        ("two", Labelled("{x}", "{y}", **names), FORMAT, [CLS, *a, SEP, *b, SEP], [0] * 4 + [1] * 2),
        ("more", Labelled("{x}", "{y}", between=(5,), **names), FORMAT, [CLS, *a, SEP, 5, *b, SEP], [0] * 5 + [1] * 2),
        ("ours", Labelled("{x}", " {y}", **names), PLAIN, [*a, *BYTES.encode(" c"), EOS], [0] * 2 + [1] * 3),
    ):
        made = example(Classification(types=True), cached(tmp_path / name, records, row, text=text))
        assert read(made) == ids and read(made, "types") == types
        assert made["targets"] == 1 == made["weights"] and made["targets"].shape == ()
        assert read(made, "positions") == list(range(len(ids))) and len(made["tokens"]) == 24
        check_keys({name: values[None] for name, values in made.items()})


def test_an_encoder_decoder_reads_the_text_on_both_sides(tmp_path):
    made = example(Classification(start=9), cached(tmp_path, Labelled(), {"text": "ab", "label": 1}))
    ids = [CLS, *BYTES.encode("ab"), SEP]
    assert read(made, "encoder/tokens") == ids and read(made) == [9, *ids[:-1]]


def test_values_are_centred(tmp_path):
    cache = cached(tmp_path, Labelled(values=True), {"text": "ab", "label": 4.5}, {"text": "c", "label": -1})
    objective = Regression(center=2, scale=5)
    assert [float(example(objective, cache, i=i)["targets"]) for i in range(2)] == [0.5, pytest.approx(-0.6)]


def test_the_first_token_of_a_word_has_its_tag(tmp_path):
    records = Tagged(labels=("O", "B"))
    rows = [{"words": ["ab", "c"], "tags": ["B", "O"]}, {"words": "d ef", "tags": "O B"}]
    made = example(TokenClassification(), cached(tmp_path, records, *rows), packing="best-fit")
    labelled = made["weights"] > 0
    found = list(zip(BYTES.decode(made["tokens"][labelled]), made["targets"][labelled].tolist(), strict=True))
    assert sorted(found) == [("a", 1), ("c", 0), ("d", 0), ("e", 1)]
    assert made["segments"].max() == 2


def test_an_answer_is_found_in_its_context(tmp_path):
    rows = [
        {"question": "who?", "context": "it is Ann", "answer": "Ann", "answer_start": 6},
        {"question": "who?", "context": "it is é Bo", "answer": ["Bo"], "answer_start": [8]},
        {"question": "who?", "context": "none"},
    ]
    cache = cached(tmp_path, Answers(), *rows)
    for i, answer in enumerate(("Ann", "Bo")):
        made = example(AnswerSpans(), cache, i=i)
        first, last = made["targets"].tolist()
        assert BYTES.decode(made["tokens"][first : last + 1]) == answer and made["weights"].tolist() == [1, 1]
    made = example(AnswerSpans(), cache, i=2)
    assert made["targets"].tolist() == [0, 0] and made["weights"].tolist() == [1, 1]
    cut = example(AnswerSpans(), cache, length=12, long="cut")
    assert cut["weights"].sum() == 0, "it was cut off"


def test_what_is_cut_keeps_its_end_and_fits_what_is_read(tmp_path):
    cache = cached(tmp_path, Labelled(), {"text": "abcdefgh", "label": 1})
    with pytest.raises(UserError, match=r"the longest has 10 tokens, a row 9"):
        packed(cache, 9, "one")[0]
    rows = packed(cache, 9, "one", long="cut")
    assert read(Classification().examples()(rows[0], np.random.default_rng(0))) == [CLS, *BYTES.encode("abcdefg"), SEP]
    assert rows.left_out == {"records cut to fit (data.long)": 1}
    assert len(read(example(Classification(), cache, length=10))) == 10


@pytest.mark.parametrize(
    ("records", "row", "message"),
    [
        (
            Labelled(labels=("yes", "no")),
            {"text": "a", "label": "n"},
            "'n' is no class of .*labels; known: no, yes: mend",
        ),
        (
            Labelled(),
            {"text": "a", "label": "x"},
            r"'x' is no number of a .*\.labels=\('x',\), the classes",
        ),
        (Labelled(), {"text": "a", "label": 1.5}, r"1\.5 is no number of a class.*values=true"),
        (Tagged(), {"words": ["a", "b", "c"], "tags": ["O", "B", "O"]}, r"tags='O' is no .*labels=\('B', 'O'\)"),
        (Labelled(), {"text": "a", "label": -1}, "-1 is no number of a class"),
        (Labelled(values=True), {"text": "a", "label": float("nan")}, "nan is no finite number"),
        (Labelled(values=True), {"text": "a", "label": None}, "None is no finite number"),
        (Labelled(), {"text": "a", "labels": 1}, "'label'"),
        (Labelled(), {"text": "", "label": 1}, "no text"),
        (Tagged(), {"words": ["a"], "tags": [1, 2]}, "1 words and 2 tags"),
        (Answers(), {"question": "a", "context": "b", "answer": "c", "answer_start": 0}, "has not the answer 'c' at 0"),
    ],
)
def test_wrong_records(tmp_path, records, row, message):
    with pytest.raises(UserError, match=message):
        cached(tmp_path, records, row)


@pytest.mark.parametrize("name", ["rows.jsonl", "rows.csv", "rows.parquet"])
def test_a_field_that_is_not_there_names_its_knob(tmp_path, name):
    file, row = tmp_path / name, {"body": "a", "class": 1}
    if name.endswith("parquet"):
        arrow, parquet = (pytest.importorskip(module) for module in ("pyarrow", "pyarrow.parquet"))
        parquet.write_table(arrow.Table.from_pylist([row, row]), file)
    elif name.endswith("csv"):
        file.write_text("body,class\na,1\nb,0\n")
    else:
        file.write_text(f"{json.dumps(row)}\n" * 2)
    for records, field, knob in (
        (Labelled("{body}"), "label", "label"),
        (Labelled("say {text}", label="class"), "text", "text"),
        (Labelled("{body}", "{other}", label="class"), "other", "second"),
        (Tagged(tags="class"), "words", "words"),
        (Documents(spans="marks"), "text", None),
    ):
        wanted = "field" if knob is None else f"records.{knob}"
        with pytest.raises(UserError, match=rf"'{field}'.*it has 'body', 'class': set config\.data\.{wanted}\b"):
            open_data(file, records=records, cache=tmp_path / "cache")


def test_wrong_choices(tmp_path):
    model = with_head(bert(layers=1, d_model=8, heads=2, vocab=13, context=8), SequenceClassifier(3))
    with pytest.raises(UserError, match=r"has 2 classes, and model\.head 3 outputs"):
        check_needs(Classification(), model)
    check_needs(Classification(3), model)
    cache = cached(tmp_path, Labelled(), {"text": "a", "label": 2})
    with pytest.raises(UserError, match=r"has the label 2, .* classes 0 to 1"):
        check_channels(Classification(), "rows", cache)
    check_channels(Classification(3), "rows", cache)
    with pytest.raises(UserError, match=r"config\.data\.packing=one"):
        check_packing(Classification(), "best-fit")
    check_packing(TokenClassification(), "best-fit")
    for wrong in (lambda: Labelled("text"), lambda: Labelled(labels=("a", "a")), lambda: Regression(scale=0.0)):
        with pytest.raises(UserError):
            wrong()


SIZES = {"layers": 1, "d_model": 8, "heads": 2, "vocab": 13}
HEADS = {
    "encoder": (bert(**SIZES, context=8), SequenceClassifier(2, activation="tanh")),
    "decoder": (gpt2(**SIZES, context=8), SequenceClassifier(1, at="last")),
    "encoder-decoder": (bart(**SIZES), SequenceClassifier(2, at="end", end=2, row="encoder/tokens")),
}


@pytest.mark.parametrize("kind", HEADS)
def test_losses_are_those_of_the_scores_and_padding_changes_nothing(kind):
    """On every kind of model; metrics of parts add up to those of the whole."""
    model = with_head(*HEADS[kind])
    objective = Classification(start=3 if kind == "encoder-decoder" else None)
    check_needs(objective, model)
    params = toys.values(model.spec())
    row = {"tokens": np.int32([4, 5, 6, 2]), "label": np.int32([1] * 4), "part": np.zeros(4, np.int32)}
    losses = []
    for length in (4, 7):
        padded = {name: np.pad(values, (0, length + 1 - 4)) for name, values in row.items()}
        padded["segments"] = np.pad(np.ones(4, np.int32), (0, length + 1 - 4))
        made = objective.examples()(padded, np.random.default_rng(0))
        batch = {name: values[None] for name, values in made.items()}
        loss = objective(model, params, batch, Ctx())
        keys = {name for name in batch if name not in ("targets", "weights")}
        scores = np.asarray(model(params, {name: batch[name] for name in keys}))
        scores = np.pad(scores, ((0, 0), (1, 0))) if scores.shape[-1] == 1 else scores
        np.testing.assert_allclose(loss.total, -jax.nn.log_softmax(scores)[0, 1], rtol=1e-5)
        assert loss.metrics["accuracy"].value == (scores[0].argmax() == 1) == loss.metrics["f1"].value
        losses.append(float(loss.total))
    np.testing.assert_allclose(losses[0], losses[1], rtol=1e-4)


def test_the_loss_of_an_answer_and_of_a_value_by_hand():
    scores = np.float32([[[1, 0], [0, 2], [9, 9]]])
    batch = {"segments": np.int32([[1, 1, 0]]), "targets": np.int32([[0, 1]]), "weights": np.float32([[1, 1]])}
    found = AnswerSpans().loss_of(scores, batch)
    np.testing.assert_allclose(found.total, np.log1p(np.exp(-1)) + np.log1p(np.exp(-2)), rtol=1e-5)
    assert found.metrics["exact"].value == 1 == found.metrics["accuracy"].value
    batch = {"targets": np.float32([1, 2, 4]), "weights": np.float32([1, 1, 0])}
    found = Regression().loss_of(np.float32([[0], [4], [8]]), batch)
    assert found.metrics["loss"].value == 2.5 and found.metrics["pearson"].value == pytest.approx(1)


def test_a_head_of_three_scores_finds_no_answers():
    model = with_head(bert(**SIZES, context=8), TokenClassifier(3))
    batch = {"tokens": toys.tokens(2), "segments": np.ones((2, 8), np.int32)}
    batch |= {"targets": np.zeros((2, 2), np.int32), "weights": np.ones((2, 2), np.float32)}
    with pytest.raises(UserError, match="2 outputs"):
        AnswerSpans()(model, toys.values(model.spec()), batch, Ctx())
