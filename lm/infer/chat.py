"""What a model is given to read: a text to go on from, or a chat written with its template.

Templates are Jinja, as tokenizer_config.json and chat_template.jinja have them, and run in a sandbox."""

import datetime
import json
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from lm.core.component import components
from lm.core.errors import UserError
from lm.hub.text import Text
from lm.model.attention import Attention
from lm.model.heads import Heads, RowScores, States, TokenScores
from lm.model.latent import LatentAttention
from lm.model.sources import Cross
from lm.model.transformer import EncoderDecoder, Model

Message = dict[str, str]  # role (system, user, assistant) and content


class Prompt(NamedTuple):
    """Ids for `Generator.stream`: those to go on from, and what an encoder reads."""

    ids: np.ndarray
    encoder: np.ndarray | None = None


def check_writes(model: Model) -> None:
    """Raise `UserError` for a model that cannot go on from a text: its head does not score the vocabulary, or its
    tokens see those that follow."""
    tower = model.decoder if isinstance(model, EncoderDecoder) else model.body
    if isinstance(model.head, (States, RowScores, TokenScores, Heads)):
        raise UserError(f"this model's head is {type(model.head).__name__}, which writes no text: open a generator")
    reads_itself = (
        part
        for part in components(tower.stack)
        if isinstance(part, LatentAttention) or (isinstance(part, Attention) and not isinstance(part.source, Cross))
    )
    if not all(part.mask.causal for part in reads_itself):
        raise UserError("this model's tokens see those that follow them, so it writes no text: open a generator")


def prompt_of(model: Model, text: Text, ids: np.ndarray) -> Prompt:
    """The tokens of a text with those around it. Of an encoder-decoder the encoder reads the text."""
    before, after = np.array(text.before, np.int32), np.array(text.after, np.int32)
    if isinstance(model, EncoderDecoder):
        start = text.start if text.start is not None else text.tokenizer.pad_id
        return Prompt(np.array([start], np.int32), np.concatenate([before, ids, after]))
    return Prompt(np.concatenate([before, ids]))


def chat_ids(text: Text, messages: Sequence[Message]) -> np.ndarray:
    """The tokens of a chat up to where the assistant's answer begins.

    Raises `UserError` for a model without a template, and for contents that spell a special token: they could end a
    turn and begin another."""
    written = render(text, messages)
    for message in messages:
        found = next((marker for marker in text.tokenizer.markers if marker in message["content"]), None)
        if found is not None and message["role"] != "assistant":
            raise UserError(f"the {message['role']} text has {found!r}, a special token of this model: leave it out")
    return text.tokenizer.encode_marked(written)


def render(text: Text, messages: Sequence[Message]) -> str:
    """A chat as the model's template writes it. Raises `UserError` where that fails or refuses the messages."""
    if text.template is None:
        raise UserError("this model has no chat template: leave out --chat, and give a text to go on from")
    try:
        import jinja2
        import jinja2.ext
        import jinja2.sandbox
    except ImportError as e:
        raise UserError("a chat needs the package jinja2: pip install -e '.[hf]'") from e

    def refuse(message: str) -> None:
        raise jinja2.TemplateError(message)

    environment = jinja2.sandbox.ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[jinja2.ext.loopcontrols]
    )
    environment.filters["tojson"] = _json
    environment.globals |= {"raise_exception": refuse, "strftime_now": lambda f: datetime.datetime.now().strftime(f)}
    special = {f"{role}_token": piece for role, piece in text.tokenizer.special.items()}
    try:
        template = environment.from_string(text.template)
        return template.render(messages=list(messages), add_generation_prompt=True, **special)
    except (jinja2.TemplateError, TypeError, ValueError) as e:
        raise UserError(f"the chat template fails ({' '.join(str(e).split())[:200]}): change the messages") from e


def _json(value: Any, indent: int | None = None) -> str:
    return json.dumps(value, ensure_ascii=False, indent=indent)
