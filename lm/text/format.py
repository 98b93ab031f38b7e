"""How a model's text is written: its tokenizer, the tokens around a text, and its chat template."""

from typing import Any, NamedTuple

from lm.text.tokenizers import Tokenizer

Ids = tuple[int, ...]


class TextFormat(NamedTuple):
    """How a model expects text.

    before, after: ids around every text that the model reads;
    ends: ids that end generated text;
    start: the decoder's first id;
    template: the chat template, in Jinja;
    context: the model's maximum number of tokens, if known;
    generation: other decoding settings of generation_config.json;
    templates: further chat templates by name, such as `tool_use`."""

    tokenizer: Tokenizer
    ends: Ids
    before: Ids = ()
    after: Ids = ()
    start: int | None = None
    template: str | None = None
    context: int | None = None
    generation: dict[str, Any] | None = None
    templates: dict[str, str] | None = None

    @property
    def lead(self) -> Ids:
        """The ids with which a decoder beside an encoder begins: its first one, and what stands before a text."""
        start = self.start if self.start is not None else self.tokenizer.pad_id
        forced = (self.generation or {}).get("forced_bos_token_id")  # such as the language of a translation
        return (start, *(self.before if forced is None else (forced,)))

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
