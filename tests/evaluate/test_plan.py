"""Evaluations as the command line makes them: the figures of transformers, and of NumPy from the model's logits."""

import json
import math
import re

import jax
import numpy as np
import pytest
from ml_collections.config_dict import ConfigDict

from lm.commands.evaluate import scored
from lm.core.component import to_dict
from lm.core.errors import UserError
from lm.evaluate.plan import Asked
from lm.hub.save import save_folder
from lm.objectives.masked import MaskedTokens
from lm.open import import_run, open_any
from lm.runs.checkpoint import OpenedModel
from lm.train.config import default
from lm.train.loop import train
from lm.zoo.registry import build
from tests import toys
from tests.evaluate.folders import DOCUMENTS, KINDS, params_of, text_of, words_of, write_texts
from tests.train import tiny

pytest.importorskip("tokenizers", reason="the package tokenizers is not installed")


@pytest.fixture(scope="module")
def texts(tmp_path_factory):
    folder = tmp_path_factory.mktemp("texts")
    write_texts(folder)
    return folder


def opened(kind: str, texts) -> OpenedModel:
    """A model as if opened from a Hugging Face folder."""
    config = default()
    config.data.update(source="", length=64 if kind in ("begun", "pairs") else 32, cache=str(texts / "cache"))
    return OpenedModel(build(KINDS[kind].knobs), params_of(kind), text_of(kind), config, None)


def evaluated(kind: str, texts, **asked) -> dict:
    file, field = ("pairs.jsonl", "from,to") if kind == "pairs" else ("documents.jsonl", "body")
    asked = {"data": str(texts / file), "field": field} | asked
    return scored(opened(kind, texts), Asked(**asked), kind)


# As tests/evaluate/oracle.py prints them: transformers 5.23, float32.
ORACLE = [
    ("begun", {}, 4.706751, 86),
    ("begun", {"first": False}, 4.712929, 78),
    ("begun", {"length": 16}, 4.811700, 86),
    ("begun", {"length": 16, "stride": 4}, 4.760030, 86),
    ("plain", {}, 4.836262, 78),
    ("plain", {"stride": 8}, 4.824113, 78),
    ("masked", {}, 4.893917, 78),
    ("pairs", {}, 3.279928, 86),
]


@pytest.mark.parametrize(("kind", "asked", "nats", "tokens"), ORACLE, ids=lambda x: str(x))
def test_figures_are_those_of_transformers(texts, kind, asked, nats, tokens):
    result = evaluated(kind, texts, **asked)
    measure = "pseudo_perplexity" if kind == "masked" else "perplexity"
    assert result["nats_per_masked_token" if kind == "masked" else "nats_per_token"] == pytest.approx(nats, abs=2e-5)
    assert result[measure] == pytest.approx(math.exp(nats), rel=1e-4)
    assert result["scored_tokens"] == tokens


def test_figures_are_those_of_the_logits(texts):
    model, params, text, *_ = opened("begun", texts)
    forward = jax.jit(lambda params, tokens: model(params, {"tokens": tokens}))
    nll, covered, hits = [], 0, 0
    for document in DOCUMENTS:
        ids = np.concatenate([text.before, text.tokenizer.encode(document), [text.tokenizer.eos_id]]).astype(np.int32)
        padded = np.pad(ids[:-1], (0, 48 - len(ids)))  # of one length: compiled once; nothing sees what follows it
        logits = np.asarray(forward(params, padded[None]), np.float64)[0, : len(ids) - 1]
        log_probs = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
        nll += (-log_probs[np.arange(len(ids) - 1), ids[1:]]).tolist()
        covered += sum(words_of(document))
        hits += int((logits.argmax(-1) == ids[1:]).sum())
    for asked in ({}, {"batch_size": 1}, {"batch_size": 3}):  # the cut into batches does not count
        result = evaluated("begun", texts, **asked)
        assert result["nats_per_token"] == pytest.approx(np.mean(nll), rel=1e-5)
        assert result["bits_per_byte"] == pytest.approx(sum(nll) / math.log(2) / covered, rel=1e-5)
        assert result["accuracy"] == pytest.approx(hits / len(nll))
        assert (result["scored_tokens"], result["scored_bytes"]) == (len(nll), covered)
        assert covered == sum(len(document.encode()) for document in DOCUMENTS)


def test_rows_and_what_is_scored_are_told(texts, capsys):
    result = evaluated("begun", texts)
    rows = "each document as <s> text </s>, in windows of 64 tokens that overlap by one; scored: all tokens after <s>"
    assert result["rows"] == rows
    file = texts / "documents.jsonl"
    assert capsys.readouterr().out == f"begun: {rows}\non {file} (all): {len(DOCUMENTS)} documents, 86 tokens\n"


@pytest.mark.parametrize(
    ("kind", "wording"),
    [
        ("plain", "as text </s>, in windows of 32 .*; scored: all tokens but the first of each"),
        ("masked", r"as \[CLS\] text \[SEP\], in .* masked in turn"),
        ("pairs", "the encoder reads from </s>, the decoder <pad> to; scored: to and </s>"),
    ],
)
def test_other_wordings(texts, kind, wording):
    assert re.search(wording, evaluated(kind, texts, batches=1, batch_size=1)["rows"])


def test_a_model_without_end_of_text_is_asked_for_none(texts):
    given = opened("begun", texts)
    given = given._replace(text=given.text._replace(ends=()))
    result = scored(given, Asked(str(texts / "documents.jsonl"), field="body"), "x")
    assert result["scored_tokens"] == 78 and "each document as <s> text, in" in result["rows"]


def test_a_forced_first_token_leads_what_a_decoder_reads(texts):
    given = opened("pairs", texts)
    wording = given.text._replace(generation={"forced_bos_token_id": 5})
    result = scored(given._replace(text=wording), Asked(str(texts / "pairs.jsonl"), field="from,to"), "x")
    assert "the decoder <pad> token 5 to;" in result["rows"]
    assert result["scored_tokens"] == 86 and result["nats_per_token"] != pytest.approx(3.279928, abs=1e-3)


@pytest.mark.parametrize(
    ("kind", "asked", "match"),
    [
        ("begun", {"data": None}, "begun has no data of its own: give --data=FILE"),
        ("pairs", {"field": "body"}, "an encoder-decoder scores pairs of texts.*--field=source,target"),
        ("pairs", {"field": "from,"}, "names no pair"),
        ("pairs", {"length": 16}, "pair 2 is of 3 and 18 tokens, more than --length=16"),
        ("masked", {"stride": 4}, "a masked one reads both sides"),
        ("begun", {"stride": 64}, "a stride of 64 does not suit rows of 64"),
        ("plain", {"length": 40}, "exceeds the model's 32 positions"),
        ("begun", {"field": "boddy"}, "has no field 'boddy'.*body"),
    ],
)
def test_what_cannot_be_evaluated_is_one_line(texts, kind, asked, match):
    with pytest.raises(UserError, match=match):
        evaluated(kind, texts, **asked)


@pytest.mark.parametrize(
    ("made", "match"),
    [
        ({"family": "bert", "pretraining": ("rtd",)}, "head is .*, which scores no text"),
        ({"family": "bert"}, "no perplexity.*has no mask token"),
        ({"family": "xlnet"}, "no perplexity.*another kind than masked models"),
    ],
)
def test_models_that_score_no_text(texts, made, match):
    small = {"layers": 1, "d_model": 16, "heads": 2, "d_ff": 24, "vocab": 24}
    model = build(small | made)
    kind = "masked" if made["family"] == "xlnet" else "begun"
    given = opened(kind, texts)._replace(model=model)
    with pytest.raises(UserError, match=match):
        scored(given, Asked(data=str(texts / "documents.jsonl"), field="body"), "x")


def test_of_several_heads_that_which_scores_text(texts):
    both = build(KINDS["masked"].knobs | {"pretraining": ("mlm", "nsp")})
    params, given = params_of("masked"), opened("masked", texts)
    head = toys.values(both.spec())["head"] | {"mlm": params["head"]}
    given = given._replace(model=both, params=params | {"head": head})
    result = scored(given, Asked(str(texts / "documents.jsonl"), field="body"), "both")
    assert result["nats_per_masked_token"] == pytest.approx(4.893917, abs=2e-5)


def test_a_run_of_masked_tokens_is_scored_as_masked_models_are(texts):
    given = opened("masked", texts)
    with given.config.unlocked():
        given.config.objective = ConfigDict(to_dict(MaskedTokens()))
    file = str(texts / "documents.jsonl")
    given.config.data.update(source=file, validation=file, field="body")
    for asked in (Asked(), Asked(file)):
        result = scored(given, asked, "run")
        assert result["nats_per_masked_token"] == pytest.approx(4.893917, abs=2e-5)
        assert result["scored_tokens"] == 78 and "perplexity" not in result
    with pytest.raises(UserError, match="a masked one reads both sides"):
        scored(given, Asked(stride=4), "run")


def test_a_long_context_costs_what_the_text_needs(texts):
    given = opened("begun", texts)
    given.config.data.length = 131072
    for length in (None, 131072):
        result = scored(given, Asked(str(texts / "documents.jsonl"), field="body", length=length), "long")
        assert result["nats_per_token"] == pytest.approx(4.706751, abs=2e-5)
    assert "windows of 131072" in result["rows"]


def test_only_some_batches(texts):
    result = evaluated("begun", texts, batches=1, batch_size=2)
    assert result["scored_tokens"] == sum(len(document.split()) + 1 for document in DOCUMENTS[:2])


def test_an_imported_run_has_no_data(tmp_path, texts):
    save_folder(tmp_path / "begun", KINDS["begun"].knobs, params_of("begun"), text_of("begun"))
    import_run(tmp_path / "begun", tmp_path / "run")
    with pytest.raises(UserError, match="run has no data of its own: give --data"):
        scored(open_any(tmp_path / "run"), Asked(), "run")


@pytest.mark.slow
def test_a_mixture_is_evaluated_part_by_part(tmp_path):
    c = tiny.config(tmp_path)
    other = tmp_path / "other.jsonl"
    other.write_text("".join(json.dumps({"say": f"{i} oars and {i * i} keels"}) + "\n" for i in range(60)))
    c.data.mixture = ((str(tmp_path / "corpus.txt"), 2.0), (str(other), 1.0, "say"))
    c.train.steps, c.log.eval_every, c.log.eval_batches = 2, 2, 0
    last = train(c, tmp_path / "run")
    result = scored(open_any(tmp_path / "run"), Asked(), "run")
    one, two = result["parts"]
    assert [part["name"] for part in (one, two)] == [str(tmp_path / "corpus.txt"), str(other)]
    assert result["nats_per_token"] == pytest.approx(last["loss"], rel=1e-5)
    assert {part["name"]: part["nats_per_token"] for part in (one, two)} == pytest.approx(last["loss_of"], rel=1e-5)
    assert result["scored_tokens"] == one["scored_tokens"] + two["scored_tokens"] == last["tokens"]
    with pytest.raises(UserError, match="--stride=4 is for documents, but these rows are as in training"):
        scored(open_any(tmp_path / "run"), Asked(stride=4), "run")
    alone = scored(open_any(tmp_path / "run"), Asked(data=str(other), field="say"), "run")
    assert len(alone["parts"]) == 1 and alone["documents"] == 60
