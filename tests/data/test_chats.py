"""Chats: from files of every shape to tokens, of which only the assistant's are predicted."""

import itertools
import json

import numpy as np
import pytest

from lm.core.errors import UserError
from lm.data.record_rows import packed
from lm.data.records.chats import Chats
from lm.data.sources import open_source
from lm.data.tokenize import build_cache
from lm.objectives.causal import NextToken
from lm.text.chat import chat_ids, trained_chat
from lm.text.format import TextFormat

pytest.importorskip("jinja2", reason="the package jinja2 is not installed")
pytest.importorskip("tokenizers", reason="the package tokenizers is not installed")
from tests.golden import chats
from tests.hub.chat_model import tokenizer

TURN = "'<|turn|>' + message['role'] + '\\n'"
PLAIN = (
    "{%- for message in messages %}{{- " + TURN + " + message['content'] | trim + eos_token }}\n{%- endfor %}"
    "{%- if add_generation_prompt %}{{ '<|turn|>assistant\\n' }}{% endif %}"
)
MARKED = (
    "{%- for message in messages %}{%- if message['role'] == 'assistant' %}{{- '<|turn|>assistant\\n' }}"
    "{%- generation %}{{- message['content'] | trim + eos_token }}{%- endgeneration %}"
    "{%- else %}{{- " + TURN + " + message['content'] | trim + eos_token }}{%- endif %}{%- endfor %}"
)
WORDS = TextFormat(tokenizer(), (0,), template=PLAIN)
TALK = [("user", " hi é "), ("assistant", "assistant? user!"), ("user", "assistant?"), ("assistant", " é ")]
MESSAGES = [{"role": role, "content": content} for role, content in TALK]


def expected(talk):
    """Tokens and mask, piece by piece."""
    plain, ids, mask = WORDS.tokenizer, [], []
    for role, content in talk:
        head, said = [1, *plain.encode(f"{role}\n")], [*plain.encode(content.strip()), 0]
        ids += head + said
        mask += [0] * len(head) + [int(role == "assistant")] * len(said)
    return ids, mask


@pytest.mark.parametrize("template", [PLAIN, MARKED])
def test_the_assistant_is_trained_on_and_nobody_else(template):
    text = WORDS._replace(template=template)
    ids, mask, covered = trained_chat(text, MESSAGES)
    assert (ids.tolist(), mask.tolist()) == expected(TALK)
    assert covered[ids <= 1].sum() == 0
    assert chat_ids(text, MESSAGES, add_generation_prompt=False).tolist() == ids.tolist()
    named = WORDS._replace(template="{{ '' }}", templates={"other": template})
    assert trained_chat(named, MESSAGES, "other").mask.tolist() == mask.tolist()


def test_masks_are_those_of_transformers():
    """Of templates that mark what the assistant writes."""
    cases = itertools.product(chats.TEMPLATES, chats.CHATS)
    for (template, chat), golden in zip(cases, json.loads(chats.FILE.read_text()), strict=True):
        ids, mask, _ = trained_chat(WORDS._replace(template=template), chats.messages(chat))
        assert ids.tolist() == golden["ids"], template
        assert mask.tolist() == golden["mask"], (template, chat)


def test_templates_that_hide_what_was_said():
    text = WORDS._replace(template=PLAIN.replace("message['content'] | trim", "message['content'] | upper"))
    with pytest.raises(UserError, match=r"changes what the assistant says .* {% generation %}"):
        trained_chat(text, MESSAGES)
    with pytest.raises(UserError, match=r"the user text has '<\|turn\|>', a special token"):
        trained_chat(WORDS, [{"role": "user", "content": "<|turn|>"}, MESSAGES[1]])


def cached(folder, *records, kind=Chats(), text=WORDS):
    file = folder / "chats.jsonl"
    file.write_text("".join(json.dumps(record) + "\n" for record in records))
    source = open_source(file, "validation", validation=file, fields=kind.fields("text"))
    return build_cache(source, text.tokenizer, folder / "cache", records=kind, text=text, workers=1)


SAME = (
    {"messages": MESSAGES[:2]},
    {"prompt": " hi é ", "response": "assistant? user!"},
    {"prompt": MESSAGES[:1], "completion": "assistant? user!"},
    {"instruction": " hi é ", "input": "", "output": "assistant? user!"},
    {"instruction": " hi é ", "output": "assistant? user!"},
    {"conversations": [{"from": "human", "value": " hi é "}, {"from": "gpt", "value": "assistant? user!"}]},
)


def test_every_shape_gives_the_same_chat(tmp_path):
    cache = cached(tmp_path, *SAME)
    ids, mask = expected(TALK[:2])
    assert cache.documents == len(SAME)
    assert cache.read(0, cache.size).tolist() == ids * len(SAME)
    assert cache.read_channel("target", 0, cache.size).tolist() == mask * len(SAME)
    with_system = cached(tmp_path, {"system": "hi", "instruction": "hi", "input": "é", "output": "user"})
    talk = [("system", "hi"), ("user", "hi\n\né"), ("assistant", "user")]
    assert with_system.read(0, with_system.size).tolist() == expected(talk)[0]


def test_chats_share_a_row_and_see_only_themselves(tmp_path):
    cache = cached(tmp_path, {"messages": MESSAGES}, *SAME)
    rows = packed(cache, 100, "best-fit")
    assert len(rows) < cache.documents
    predicted = []
    for i in range(len(rows)):
        made = NextToken(targets_only=True).examples()(rows[i], np.random.default_rng(0))
        predicted += made["targets"][made["weights"] > 0].tolist()
        starts = np.flatnonzero(made["positions"] == 0)[: made["segments"].max()]
        assert (made["tokens"][starts] == 1).all(), "each begins with its own first turn"
        assert (made["weights"][starts - 1][starts > 0] == 0).all(), "no chat predicts the next one"
    tokens, mask = cache.read(0, cache.size), cache.read_channel("target", 0, cache.size)
    assert sorted(predicted) == sorted(tokens[mask > 0].tolist())


def test_a_chat_that_is_cut_is_left_out_where_nothing_is_predicted_any_more(tmp_path):
    said, asked = (json.loads(json.dumps(MESSAGES[:2])) for _ in range(2))
    said[1]["content"], asked[0]["content"] = "user " * 30, "user " * 30  # a long answer, and a long question
    rows = packed(cached(tmp_path, {"messages": said}, {"messages": asked}), 40, "best-fit", "cut")
    assert len(rows) == 1 and rows[0]["target"].any()
    assert rows.left_out == {
        "records left out: all that a row has room for is only read, nothing predicted (data.length)": 1,
        "records cut to fit (data.long)": 1,
    }


def test_a_chat_without_an_end_of_its_own_gets_one(tmp_path):
    text = WORDS._replace(template="{% for m in messages %}{{ m['role'] + ': ' + m['content'] }}{% endfor %}")
    cache = cached(tmp_path, {"messages": MESSAGES[:2]}, text=text)
    target = cache.read_channel("target", 0, cache.size)
    assert cache.read(cache.size - 1, cache.size).tolist() == [text.tokenizer.eos_id] and target[-1] == 1


def test_another_template_is_another_cache(tmp_path):
    one, other = (cached(tmp_path, SAME[0], text=WORDS._replace(template=t)) for t in (PLAIN, PLAIN + " "))
    assert one.directory != other.directory


def test_wrong_chats(tmp_path):
    silent = {"messages": MESSAGES[:1]}
    with pytest.raises(UserError, match=r"chats\.jsonl line 2: this chat has no turn of an assistant"):
        cached(tmp_path, SAME[0], silent)
    kept = cached(tmp_path, SAME[0], silent, {"messages": []}, kind=Chats(unanswered="drop"))
    assert kept.documents == 1 and list(kept.left_out.values()) == [2]
    silent = "{% generation %}{% endgeneration %}{{ messages[0]['content'] }}"
    with pytest.raises(UserError, match="line 1: the chat template writes nothing of the assistant's"):
        cached(tmp_path, SAME[0], text=WORDS._replace(template=silent))
    for record, wrong in (
        ({"text": "a"}, r"line 1 is no chat: it has none of the fields completion, conversations"),
        ({"messages": [{"content": "a"}]}, "line 1: a chat must be a list of objects with 'role' and 'content'"),
        ({"instruction": ["a"], "output": "b"}, "line 1: 'instruction' is not text but list"),
        ({"messages": [{"role": "assistant", "content": "a"}]}, "line 1: this model has no chat template"),
    ):
        text = WORDS if "template" not in wrong else WORDS._replace(template=None)
        with pytest.raises(UserError, match=wrong):
            cached(tmp_path, record, text=text)
