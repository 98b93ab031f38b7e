"""The tokens of a text to continue, or of a chat rendered with the model's template."""

import json
from collections.abc import Sequence
from typing import Any

import numpy as np

from lm.core.errors import UserError
from lm.text.format import TextFormat
from lm.text.template import Message, render


def text_ids(text: TextFormat, given: str, special: bool = False) -> np.ndarray:
    """The tokens of a text. With `special`, special tokens spelled in it (`text.tokenizer.markers`: <extra_id_0>,
    <|fim_prefix|>, ...) are recognised; otherwise they are text like any other."""
    return (text.tokenizer.encode_marked if special else text.tokenizer.encode)(given)


def chat_ids(text: TextFormat, messages: Sequence[Message], **more: Any) -> np.ndarray:
    """The tokens of a chat up to the start of the assistant's answer. `more` is passed to `render`.

    Raises `UserError` for a model without a template, and for messages that spell a special token, since they could end
    a turn and start another."""
    written = render(text, messages, **more)
    markers = text.tokenizer.markers
    for message in messages:
        said = json.dumps(message, ensure_ascii=False)
        found = next((marker for marker in markers if marker in said), None)
        if found is not None and message["role"] != "assistant":
            raise UserError(f"the {message['role']} text has {found!r}, a special token of this model: leave it out")
    return text.tokenizer.encode_marked(written)
