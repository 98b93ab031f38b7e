"""Prompts: a text to continue, or a chat rendered with the model's template."""

from typing import NamedTuple

import numpy as np

from lm.core.errors import UserError
from lm.model.heads import Heads, NoHead, SequenceClassifier, TokenClassifier
from lm.model.transformer import EncoderDecoder, Group, Model
from lm.text.format import TextFormat


class Prompt(NamedTuple):
    """Ids for `Generator.stream`: those to continue, and those an encoder reads."""

    ids: np.ndarray
    encoder: np.ndarray | None = None


def check_writes(model: Model) -> None:
    """Raise `UserError` for a model that cannot continue a text, because its head does not score the vocabulary or its
    tokens attend to later ones."""
    if isinstance(model, Group):
        names = ", ".join(name for name, _ in model.parts)
        raise UserError(f"this is a group of the models {names}: make one of them a run of its own (lm.hub part)")
    if isinstance(model.head, (NoHead, SequenceClassifier, TokenClassifier, Heads)):
        raise UserError(f"this model's head is {type(model.head).__name__}, which writes no text: open a generator")
    if not model.causal:
        raise UserError("this model's tokens see those that follow them, so it writes no text: open a generator")


def prompt_of(model: Model, text: TextFormat, ids: np.ndarray) -> Prompt:
    """A text's ids with the special tokens around it. In an encoder-decoder the encoder reads the text."""
    before, after = np.array(text.before, np.int32), np.array(text.after, np.int32)
    if isinstance(model, EncoderDecoder):
        start = text.start if text.start is not None else text.tokenizer.pad_id
        forced = (text.generation or {}).get("forced_bos_token_id")  # a target language, often
        begin = [start] if forced is None else [start, forced]
        return Prompt(np.array(begin, np.int32), np.concatenate([before, ids, after]))
    return Prompt(np.concatenate([before, ids]))
