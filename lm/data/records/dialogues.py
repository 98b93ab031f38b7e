"""Dialogues: who says what, without a template."""

from typing import Literal

import numpy as np

from lm.core.component import component
from lm.core.errors import UserError
from lm.data.records.chats import Chats
from lm.data.records.records import Encoded, Records, SourceRecord, joined, special
from lm.text.format import TextFormat

ROLES = ("user", "assistant")
SILENT = "dialogues left out: nobody says anything"


@component
class Dialogues(Records):
    """What is said in a chat, turn by turn, as plain text with the end-of-text behind it; what is known of a chat is as
    for `Chats`. Whatever is neither the user's nor the assistant's, such as a system's, is left out.

    Channels: `sentence` is 1 where a turn begins, `part` 0 where the user speaks and 1 where the assistant does."""

    shape: Literal["auto", "messages", "prompt", "alpaca", "sharegpt"] = "auto"  # auto: by the fields of each record

    whole = False

    def fields(self, text: str) -> tuple[str, ...]:
        return Chats(self.shape).fields(text)

    @property
    def channels(self) -> tuple[str, ...]:
        return ("part", "sentence")

    def encode(self, item: SourceRecord, text: TextFormat) -> Encoded:
        turns = []
        for message in Chats(self.shape).messages(item):
            said = message.get("content")
            if message["role"] not in ROLES or not said:
                continue
            if not isinstance(said, str):
                raise UserError(f"{item.where}: what a turn says is not text but {type(said).__name__}")
            turn = Encoded(*text.tokenizer.encode_sized(said))
            begins = np.zeros(len(turn.ids), np.int32)
            begins[:1] = 1
            part = np.full(len(turn.ids), ROLES.index(message["role"]), np.int32)
            turns.append(turn._replace(channels={"part": part, "sentence": begins}))
        if not turns:
            return special()._replace(left_out=SILENT)
        return joined(special(*text.before), *turns, special(text.tokenizer.eos_id))
