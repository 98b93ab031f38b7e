"""What a model is given to read: a text to go on from, or a chat written with its template."""

import json
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from lm.core.component import components
from lm.core.errors import UserError
from lm.hub.text import Text
from lm.infer.template import Message, render
from lm.model.attention import Attention
from lm.model.heads import Heads, RowScores, States, TokenScores
from lm.model.latent import LatentAttention
from lm.model.sources import Cross
from lm.model.transformer import EncoderDecoder, Model


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


def text_ids(text: Text, given: str, special: bool = False) -> np.ndarray:
    """The tokens of a text; `special`: special tokens that are spelled in it (`text.tokenizer.markers`: <extra_id_0>,
    <|fim_prefix|>, ...) are these, else text like any other."""
    return (text.tokenizer.encode_marked if special else text.tokenizer.encode)(given)


def prompt_of(model: Model, text: Text, ids: np.ndarray) -> Prompt:
    """The tokens of a text with those around it. Of an encoder-decoder the encoder reads the text."""
    before, after = np.array(text.before, np.int32), np.array(text.after, np.int32)
    if isinstance(model, EncoderDecoder):
        start = text.start if text.start is not None else text.tokenizer.pad_id
        forced = (text.generation or {}).get("forced_bos_token_id")  # a target language, often
        begin = [start] if forced is None else [start, forced]
        return Prompt(np.array(begin, np.int32), np.concatenate([before, ids, after]))
    return Prompt(np.concatenate([before, ids]))


def chat_ids(text: Text, messages: Sequence[Message], **more: Any) -> np.ndarray:
    """The tokens of a chat up to where the assistant's answer begins; `more`: what else `render` takes.

    Raises `UserError` for a model without a template, and for contents that spell a special token: they could end a
    turn and begin another."""
    written = render(text, messages, **more)
    markers = text.tokenizer.markers
    for message in messages:
        said = json.dumps(message, ensure_ascii=False)
        found = next((marker for marker in markers if marker in said), None)
        if found is not None and message["role"] != "assistant":
            raise UserError(f"the {message['role']} text has {found!r}, a special token of this model: leave it out")
    return text.tokenizer.encode_marked(written)
