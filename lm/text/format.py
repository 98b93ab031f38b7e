"""How a model's text is written: its tokenizer, the tokens around a text, and its chat template."""

from typing import Any, NamedTuple

from lm.text.tokenizers import Tokenizer

Ids = tuple[int, ...]


class TextFormat(NamedTuple):
    """before, after: ids that stand around every text that the model reads; ends: ids any of which ends what it writes;
    start: the first id that a decoder is given; template: of a chat, in Jinja; context: the most tokens that the model
    is made to read at a time, where that is known; generation: what else generation_config.json says of decoding;
    templates: those of a chat that have a name, as `tool_use`."""

    tokenizer: Tokenizer
    ends: Ids
    before: Ids = ()
    after: Ids = ()
    start: int | None = None
    template: str | None = None
    context: int | None = None
    generation: dict[str, Any] | None = None
    templates: dict[str, str] | None = None

    def saved(self) -> dict[str, Any]:
        """All but the tokenizer, ready for JSON."""
        return {k: v for k, v in self._asdict().items() if k != "tokenizer"}

    @classmethod
    def of(cls, tokenizer: Tokenizer, saved: dict[str, Any] | None, reads: bool = True) -> "TextFormat":
        """The format that `saved` describes, or that of our own runs. `reads`: an encoder beside a decoder, whose input
        ends with an end-of-text."""
        if saved is None:
            end = (tokenizer.eos_id,)
            return cls(tokenizer, end, (), end if reads else (), tokenizer.pad_id if reads else None)
        known = {name: saved[name] for name in cls._fields if name in saved}  # older checkpoints keep fewer
        return cls(tokenizer, **known | {name: tuple(known[name]) for name in ("ends", "before", "after")})
