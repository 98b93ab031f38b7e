"""Filling blanks with a cache gives what one pass over text and spans gives, at the positions of training."""

import dataclasses
import functools

import jax.numpy as jnp
import numpy as np
import pytest

from lm.core.errors import UserError
from lm.infer.blanks import BlankFiller, fill, filled, sentinel_spans
from lm.infer.generate import ENDED, Generator
from lm.infer.sampling import Sampler
from lm.objectives.causal import NextToken
from lm.objectives.examples.blanks import BlankedRows, BlankIds, LongSpan, ShortSpans
from lm.objectives.examples.middle import MiddleIds
from lm.objectives.middle import FillInTheMiddle, middle_ids
from lm.objectives.mixed import Mixed
from lm.text.format import TextFormat
from lm.text.tokenizers import ByteTokenizer
from lm.zoo.registry import build
from tests import toy_towers, toys

MASK, LONG, START, END = 9, 10, 11, 12
IDS = BlankIds(MASK, LONG, -1, START, END)
GREEDY = Sampler(temperature=0)
TEXTS = [np.array([5, MASK, 7, MASK, 2, 3]), np.array([1, 4, LONG])]
SHAPE = {"layers": 1, "d_model": 16, "heads": 2, "d_ff": 20, "vocab": toys.VOCAB}


@functools.cache
def filler(family: str) -> tuple:
    more = {"context": 32} if family == "glm" else {}
    model = build({"family": family, **SHAPE, **more})
    params = toys.values(model.spec())
    return model, params, BlankFiller(model, params, IDS)


def laid_out(text: np.ndarray, spans: list[np.ndarray], runs_on: bool) -> dict[str, np.ndarray]:
    """Text and spans as the builder of examples lays them out, spans in the order of their blanks."""

    class InOrder:
        def permutation(self, n: int) -> np.ndarray:
            return np.arange(n)

    at = np.flatnonzero(np.isin(text, IDS.blanks))
    whole, edges, before = [], [], 0
    for place, span in zip(at, spans, strict=True):
        whole += [text[before:place], span]
        first = sum(map(len, whole[:-1]))
        edges.append((first, first + len(span)))
        before = place + 1
    whole.append(text[before:])
    build_ = BlankedRows(((1.0, ShortSpans()), (1.0, LongSpan())), IDS, running=runs_on)
    made = build_.laid_out(np.concatenate(whole), None, np.array(edges), int(text[at[0]]), InOrder())
    return {k: np.asarray(v)[None] for k, v in made.items() if k not in ("targets", "weights", "bytes")} | {
        "targets": made["targets"]
    }


@pytest.mark.parametrize("family", ["glm", "glm-130b", "chatglm"])
def test_filling_step_by_step_equals_one_pass_over_text_and_spans(family):
    model, params, filling = filler(family)
    assert filling.runs_on == (family == "glm-130b")
    most = 3
    written = filling(TEXTS, max_new=most, sampler=GREEDY)
    assert [len(spans) for spans in written] == [2, 1]
    for text, spans in zip(TEXTS, written, strict=True):
        # A span that ended by itself is followed by [eop]; one that was cut is of `most` tokens.
        assert all(len(span) <= most and END not in span for span in spans)
        row = laid_out(text, spans, filling.runs_on)
        targets = row.pop("targets")
        row = {k: jnp.asarray(v.astype(bool if k == "prefix" else np.int32)) for k, v in row.items()}
        best = np.asarray(model(params, row)[0].argmax(-1))
        at, read = len(text), iter(spans)
        for span in read:
            assert best[at : at + len(span)].tolist() == span.tolist() == targets[at : at + len(span)].tolist()
            assert len(span) == most or best[at + len(span)] == END
            at += len(span) + 1


def test_a_span_ends_where_the_model_says_so_and_the_next_one_follows():
    model, params, filling = filler("glm")
    before = filling(TEXTS, max_new=3, sampler=GREEDY)
    end = int(before[0][0][-1])
    stop = before[0][0].tolist().index(end)
    ids = dataclasses.replace(IDS, end=end)
    written = BlankFiller(model, params, ids)(TEXTS, max_new=3, sampler=GREEDY)
    assert written[0][0].tolist() == before[0][0][:stop].tolist()
    row = laid_out(TEXTS[0], written[0], False)
    row = {k: jnp.asarray(v.astype(bool if k == "prefix" else np.int32)) for k, v in row.items() if k != "targets"}
    best = np.asarray(model(params, row)[0].argmax(-1))
    at = len(TEXTS[0])
    assert best[at : at + stop + 1].tolist() == [*written[0][0], end]
    assert best[at + stop + 1 :][: len(written[0][1])].tolist() == written[0][1].tolist()


def test_a_text_is_filled_alike_whatever_shares_the_batch():
    _, _, filling = filler("glm")
    hot = Sampler(temperature=1.0)
    together = filling(TEXTS[:1] * 2, max_new=3, sampler=hot, seed=3)
    other = filling(TEXTS, max_new=3, sampler=hot, seed=3)
    assert [s.tolist() for s in other[0]] == [s.tolist() for s in together[0]]
    assert [s.tolist() for s in together[0]] != [s.tolist() for s in together[1]]  # rows draw for themselves


def test_steps_say_which_blank_they_fill():
    _, _, filling = filler("glm")
    steps = filling.stream(TEXTS, max_new=3, sampler=GREEDY)
    blanks = [int(step.blanks[0]) for step in steps if step.tokens[0] != ENDED]
    assert blanks == sorted(blanks) and set(blanks) <= {0, 1}


def test_what_was_written_takes_the_place_of_blanks():
    text, spans = np.array([5, MASK, 7, MASK]), {1: np.array([1, 2]), 3: np.array([], int)}
    assert filled(text, spans).tolist() == [5, 1, 2, 7]
    found = sentinel_spans(np.array([90, 1, 2, 91, 92, 3, 90, 4]), [90, 91, 92, 93])
    assert {k: v.tolist() for k, v in found.items()} == {90: [1, 2], 91: [], 92: [3]}
    assert sentinel_spans(np.array([1, 2]), [90]) == {}


def test_errors_name_the_text_and_the_remedy():
    model, params, filling = filler("glm")
    with pytest.raises(UserError, match="text 0 has no blank: write"):
        filling([np.array([1, 2])], max_new=2)
    with pytest.raises(UserError, match="of 7 tokens and max_new=41 exceed the 33 positions of the model"):
        filling(TEXTS[:1], max_new=20)
    with pytest.raises(UserError, match="max_new=0 must be at least 1"):
        filling(TEXTS[:1], max_new=0)
    with pytest.raises(UserError, match="Prefix mask"):
        BlankFiller(build({"family": "gpt2", **SHAPE, "context": 16}), params, IDS)


def test_an_encoder_decoder_fills_its_sentinels(monkeypatch):
    """What it writes under a sentinel takes its place; one that it passes over stays."""
    model, text = toy_towers.encoder_decoder(), TextFormat.of(Sentinels(), None)

    class Wrote:
        def __init__(self, *_, **__): ...

        def __call__(self, prompts, encoder, max_new, **_):
            assert [e.tolist() for e in encoder] == [[5, 11, 7, 12, 1]] * 2 and max_new == 4
            return [np.array([11, 3, 4, 12, 6]), np.array([11])]

    monkeypatch.setattr("lm.infer.blanks.Generator", Wrote)
    both = fill(model, {}, text, np.array([5, 11, 7, 12]), num=2, max_new=4)
    assert [whole.tolist() for whole in both] == [[5, 3, 4, 7, 6], [5, 7, 12]]
    with pytest.raises(UserError, match="no blank: write <extra_id_0>"):
        fill(model, {}, text, np.array([5]))


def test_a_decoder_fills_in_a_middle():
    """Its token for the suffix stands where something is missing; what it writes behind both parts takes its place, up
    to an end or to one of its own marks."""
    tokenizer = ByteTokenizer().with_special(("<fim_prefix>", "<fim_suffix>", "<fim_middle>"))
    prefix, suffix, middle = map(tokenizer.piece_id, tokenizer.markers[-3:])
    model = build({"family": "gpt2", **SHAPE, "vocab": tokenizer.vocab_size, "context": 48})
    params, text = toys.values(model.spec()), TextFormat.of(tokenizer, None, reads=False)
    ids = tokenizer.encode_marked("ab<fim_suffix>c")
    laid = np.array([prefix, *tokenizer.encode("ab"), suffix, *tokenizer.encode("c"), middle])
    (expected,) = Generator(model, params)([laid], max_new=6, sampler=GREEDY, eos_id=tokenizer.eos_id)
    (whole,) = fill(model, params, text, ids, max_new=6, sampler=GREEDY)
    assert len(expected) == 6 and whole.tolist() == [*ids[:2], *expected, *ids[3:]]
    # by other ids, of the objective that the model was trained with; one of these ends the middle as well
    stop = int(expected[-1])
    own = MiddleIds(prefix, suffix, middle)
    trained = Mixed(((1.0, "fim", FillInTheMiddle(ids=dataclasses.replace(own, prefix=stop))),))
    assert (
        middle_ids(trained, tokenizer) == MiddleIds(stop, suffix, middle) and middle_ids(NextToken(), tokenizer) is None
    )
    assert middle_ids(FillInTheMiddle(), tokenizer) == own == MiddleIds.of(tokenizer)
    (short,) = fill(model, params, text._replace(ends=(stop,)), ids, max_new=6, sampler=GREEDY)
    assert short.tolist() == [*ids[:2], *expected[: expected.tolist().index(stop)], *ids[3:]]
    for wrong, count in (("ab", "no"), ("a<fim_suffix>b<fim_suffix>", "2")):
        with pytest.raises(UserError, match=f"the text has {count} blanks: write <fim_suffix> once"):
            fill(model, params, text, tokenizer.encode_marked(wrong))


class Sentinels:
    """Of a toy's vocabulary the last two ids."""

    pad_id, eos_id, sentinels, fingerprint, markers = 0, 1, 2, "toy", ()

    def sentinel(self, i: int) -> int:
        return 11 + i
