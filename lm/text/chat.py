"""The tokens of a text to continue, or of a chat rendered with the model's template."""

import json
import re
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from lm.core.errors import UserError
from lm.text.format import TextFormat
from lm.text.template import BEGIN, END, Message, render


def text_ids(text: TextFormat, given: str, special: bool = False) -> np.ndarray:
    """The tokens of a text. With `special`, special tokens spelled in it (`text.tokenizer.markers`: <extra_id_0>,
    <|fim_prefix|>, ...) are recognised; otherwise they are text like any other."""
    return (text.tokenizer.encode_marked if special else text.tokenizer.encode)(given)


def chat_ids(text: TextFormat, messages: Sequence[Message], **more: Any) -> np.ndarray:
    """The tokens of a chat up to the start of the assistant's answer. `more` is passed to `render`.

    Raises `UserError` for a model without a template, and for messages that spell a special token, since they could end
    a turn and start another."""
    written = render(text, messages, **more)
    _check_said(text, messages)
    return text.tokenizer.encode_marked(written)


class TrainedChat(NamedTuple):
    """A chat whose assistant is to be imitated, as tokens."""

    ids: np.ndarray  # int32[n]
    mask: np.ndarray  # uint8[n]: 1 on what the assistant wrote, the end of its turn included
    covered: np.ndarray  # int32[n]: bytes of text that each covers; special tokens are none


def trained_chat(text: TextFormat, messages: Sequence[Message], template: str | None = None) -> TrainedChat:
    """A whole chat as the model's template writes it (or another of its templates, by name).

    A template with {% generation %} says itself what the assistant wrote. Of another one it is the content of the
    assistant's messages, with the special token right behind it, which ends the turn.

    Raises `UserError` as `chat_ids` does, and for a template that writes a message otherwise than it is."""
    _check_said(text, messages)
    options: dict[str, Any] = {"add_generation_prompt": False, "template": template}
    marked = render(text, messages, marks=True, **options)
    if BEGIN not in marked:
        marked = _marked_contents(text, messages, options)
    written, spans = "", []
    for i, piece in enumerate(re.split(f"{BEGIN}|{END}", marked)):
        start = len(written.encode())
        written += piece
        if i % 2:
            spans.append((start, len(written.encode())))
    ids, covered = text.tokenizer.encode_marked_sized(written)
    ends = np.cumsum(covered)
    mask = np.zeros(len(ids), np.uint8)
    for start, end in spans:
        mask[np.searchsorted(ends, start, side="right") : np.searchsorted(ends - covered, end, side="left")] = 1
    spelled = np.isin(ids, [text.tokenizer.piece_id(marker) for marker in text.tokenizer.markers])
    return TrainedChat(ids, mask, np.where(spelled, 0, covered))


def _marked_contents(text: TextFormat, messages: Sequence[Message], options: dict[str, Any]) -> str:
    """A chat with the contents of the assistant's messages, and what ends these, between BEGIN and END."""
    said = [m["content"] for m in messages if _speaks(m)]
    place = iter(range(len(said)))
    places = [{**m, "content": f"{BEGIN}{next(place)}{END}"} if _speaks(m) else m for m in messages]
    pieces = re.split(f"{BEGIN}\\d+{END}", render(text, places, **options))
    whole = render(text, messages, **options)
    for change in (str, str.strip):  # templates that trim
        contents = [change(content) for content in said]
        if len(pieces) == len(said) + 1 and whole == _woven(pieces, contents):
            break
    else:
        raise UserError(
            "the chat template changes what the assistant says (as reasoning that it leaves out), so that it is not "
            "found in what it writes: give a template that marks it with {% generation %}"
        )
    ending = re.compile(rf"\s*(?:{'|'.join(map(re.escape, text.tokenizer.markers)) or '(?!)'})")
    marked = pieces[0]
    for content, behind in zip(contents, pieces[1:], strict=True):
        end = found.end() if (found := ending.match(behind)) else 0
        marked += f"{BEGIN}{content}{behind[:end]}{END}{behind[end:]}"
    return marked


def _speaks(message: Message) -> bool:
    return message["role"] == "assistant" and isinstance(message.get("content"), str)


def _woven(pieces: Sequence[str], contents: Sequence[str]) -> str:
    return pieces[0] + "".join(content + piece for content, piece in zip(contents, pieces[1:], strict=True))


def _check_said(text: TextFormat, messages: Sequence[Message]) -> None:
    """Raise `UserError` for a message, other than the assistant's, that spells a special token."""
    markers = text.tokenizer.markers
    for message in messages:
        said = json.dumps(message, ensure_ascii=False)
        found = next((marker for marker in markers if marker in said), None)
        if found is not None and message["role"] != "assistant":
            raise UserError(f"the {message['role']} text has {found!r}, a special token of this model: leave it out")
