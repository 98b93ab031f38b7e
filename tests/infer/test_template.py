"""Chats as transformers writes them (recorded by `chats.py`)."""

import json

import pytest

from lm.core.errors import UserError
from lm.text.chat import chat_ids
from lm.text.format import TextFormat
from lm.text.template import render
from lm.text.tokenizers import ByteTokenizer
from tests.infer.chats import CHATS, RECORD, ROLES, TOOLS

pytest.importorskip("jinja2", reason="the package jinja2 is not installed")

ORACLE = json.loads(RECORD.read_text(encoding="utf-8"))
USER = [{"role": "user", "content": "hi"}]


class Named(ByteTokenizer):
    special = {role.removesuffix("_token"): piece for role, piece in ROLES.items()}  # noqa: RUF012


def text(template, **named):
    return TextFormat(Named(), (1,), template=template, templates=named or None)


@pytest.mark.parametrize("name", CHATS)
def test_as_transformers(name):
    template, messages, given = CHATS[name]
    before = json.dumps(messages)
    assert render(text(template), messages, **given) == ORACLE[name]
    assert json.dumps(messages) == before


def test_templates_by_name():
    several = text("plain", tool_use="{{ tools | length }} tools", rag="{{ documents }}")
    assert render(several, USER) == "plain" == render(several, USER, template="default")
    assert render(several, USER, tools=TOOLS) == "1 tools"
    assert render(several, USER, template="rag") == "None"
    with pytest.raises(UserError, match="no chat template called 'tool': those with a name are rag, tool_use"):
        render(several, USER, template="tool")


def test_what_cannot_be_gone_on_with():
    with pytest.raises(UserError, match="needs a last message with content, and no add_generation_prompt"):
        render(text("{{ messages }}"), USER, continue_final_message=True)
    with pytest.raises(UserError, match="leaves out the end of the last message"):
        render(text("x"), USER, add_generation_prompt=False, continue_final_message=True)
    with pytest.raises(UserError, match=r"the chat template fails .*: change the messages"):
        render(text("{{ 1 // 0 }}"), USER)


def test_a_special_token_is_found_wherever_it_stands_in_a_message():
    content = [{"type": "text", "text": "a<extra_id_3>"}]
    with pytest.raises(UserError, match="the user text has '<extra_id_3>', a special token"):
        chat_ids(text("{{ messages[0].content[0].text }}"), [{"role": "user", "content": content}])
