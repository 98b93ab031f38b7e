"""Chats: conversations of which the assistant's turns are to be predicted."""

from collections.abc import Iterator, Mapping
from typing import Any, Literal

import numpy as np

from lm.core.component import component
from lm.core.errors import UserError
from lm.data.records.records import Encoded, Records, SourceRecord, joined, special
from lm.text.chat import trained_chat
from lm.text.format import TextFormat

# Who speaks in ShareGPT's conversations; whoever else does is the assistant, under the name of its model.
SPEAKERS = {
    "human": "user",
    "user": "user",
    "system": "system",
    "tool": "tool",
    "function": "tool",
    "observation": "tool",
}
SHAPES = {  # the fields by which a shape is known, and all that it has
    "messages": (("messages",), ("messages?",)),
    "sharegpt": (("conversations",), ("conversations?", "system?")),
    "alpaca": (("instruction", "output"), ("instruction?", "input?", "output?", "system?")),
    "prompt": (("prompt", "response"), ("prompt?", "response?", "completion?", "system?")),
}
NO_TURN = "chats left out: without an assistant's turn (data.records.unanswered)"


@component
class Chats(Records):
    """Chats as the model's chat template writes them. What is known of a chat is one of

        {"messages": [{"role": "user", "content": ..}, {"role": "assistant", ..}, ..]}
        {"prompt": .., "response": ..}                          or "completion"; the prompt may be a list of messages
        {"instruction": .., "input": .., "output": ..}          Alpaca; "input" may be missing or empty
        {"conversations": [{"from": "human", "value": ..}, {"from": "gpt", ..}, ..]}       ShareGPT

    and, but for the first, a "system" text. Channel: `target` is 1 on what the assistant wrote, the end of its turns
    included."""

    shape: Literal["auto", "messages", "prompt", "alpaca", "sharegpt"] = "auto"  # auto: by the fields of each record
    template: str = ""  # another of the model's chat templates, by its name
    unanswered: Literal["error", "drop"] = "error"  # what becomes of a chat without an assistant's turn

    def fields(self, text: str) -> tuple[str, ...]:
        shapes = SHAPES if self.shape == "auto" else (self.shape,)
        return tuple(dict.fromkeys(field for shape in shapes for field in SHAPES[shape][1]))

    @property
    def channels(self) -> tuple[str, ...]:
        return ("target",)

    def fingerprint(self, text: TextFormat) -> str:
        return super().fingerprint(text) + repr((text.template, text.templates, text.ends))

    def encode(self, item: SourceRecord, text: TextFormat) -> Encoded:
        messages = self.messages(item)
        if not any(message["role"] == "assistant" and message.get("content") for message in messages):
            if self.unanswered == "drop":
                return special()._replace(left_out=NO_TURN)
            raise UserError(
                f"{item.where}: this chat has no turn of an assistant, so that there is nothing to learn: mend it, or "
                "set config.data.records.unanswered=drop"
            )
        try:
            chat = trained_chat(text, messages, self.template or None)
        except UserError as e:
            raise UserError(f"{item.where}: {e}") from e
        if not chat.mask.any():
            raise UserError(f"{item.where}: the chat template writes nothing of the assistant's: give another")
        made = Encoded(chat.ids, chat.covered, {"target": chat.mask.astype(np.int32)})
        if len(made.ids) and made.ids[-1] in (text.tokenizer.eos_id, *text.ends):
            return made
        last = chat.mask[-1:].astype(np.int32)  # the end of text is the assistant's, if the last word is
        return joined(made, special(text.tokenizer.eos_id)._replace(channels={"target": last}))

    def messages(self, record: SourceRecord) -> list[dict[str, Any]]:
        """Who says what: role and content of each turn. Raises `UserError` for what is no chat."""
        values = {name: value for name, value in record.values.items() if value not in (None, "")}
        by_fields = (name for name, (known, _) in SHAPES.items() if any(field in values for field in known))
        shape = next(by_fields, None) if self.shape == "auto" else self.shape
        system = [{"role": "system", "content": values["system"]}] if shape != "messages" and "system" in values else []
        if shape == "messages":
            return list(_turns(values.get("messages"), record.where, "role", "content"))
        if shape == "sharegpt":
            turns = _turns(values.get("conversations"), record.where, "from", "value")
            return [*system, *(turn | {"role": SPEAKERS.get(turn["role"], "assistant")} for turn in turns)]
        if shape == "alpaca":
            asked = "\n\n".join(
                _text(values[name], record, name) for name in ("instruction", "input") if name in values
            )
            return [*system, *_pair(asked, values.get("output"), record)]
        if shape == "prompt":
            asked = values.get("prompt", "")
            begun = list(_turns(asked, record.where, "role", "content")) if isinstance(asked, list) else None
            answer = values.get("response", values.get("completion"))
            return [*system, *(_pair(asked, answer, record) if begun is None else [*begun, *_pair("", answer, record)])]
        names = ", ".join(sorted({field.rstrip("?") for field in self.fields("")}))
        raise UserError(f"{record.where} is no chat: it has none of the fields {names}")


def _pair(asked: Any, answer: Any, record: SourceRecord) -> list[dict[str, Any]]:
    sides = (("user", asked), ("assistant", answer))
    return [{"role": role, "content": _text(said, record, role)} for role, said in sides if said]


def _turns(turns: Any, where: str, role: str, content: str) -> Iterator[dict[str, Any]]:
    """Messages from a list of objects that name role and content so; others of their fields are left as they are."""
    if not isinstance(turns, list) or not all(isinstance(turn, Mapping) and role in turn for turn in turns):
        raise UserError(f"{where}: a chat must be a list of objects with {role!r} and {content!r}")
    for turn in turns:
        rest = {name: value for name, value in turn.items() if name not in (role, content)}
        yield {"role": turn[role], "content": turn.get(content), **rest}


def _text(value: Any, record: SourceRecord, name: str) -> str:
    if not isinstance(value, str):
        raise UserError(f"{record.where}: {name!r} is not text but {type(value).__name__}")
    return value
