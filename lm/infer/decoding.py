"""How an opened model should decode: the languages of a translation, and the settings of generation_config.json."""

import re
from collections.abc import Mapping
from typing import Any, NamedTuple

from lm.core.errors import UserError, nearest
from lm.text.format import TextFormat
from lm.text.tokenizers import Tokenizer

# How languages are spelled as special tokens: mBART's en_XX, NLLB's eng_Latn, M2M's __en__ (for en).
LANGUAGE = re.compile(r"[a-z]{2,3}_[A-Z]{2}|[a-z]{3}_[A-Z][a-z]{3}|__([a-z]{2,3})__")
# Settings that change the most likely text, with the value that means "off".
NOT_APPLIED: dict[str, Any] = {
    **{"num_beams": 1, "num_beam_groups": 1, "no_repeat_ngram_size": 0, "encoder_no_repeat_ngram_size": 0},
    **{"repetition_penalty": 1.0, "encoder_repetition_penalty": 1.0, "min_length": 0, "min_new_tokens": 0},
    **{"penalty_alpha": 0.0, "guidance_scale": 1.0},
    **{"exponential_decay_length_penalty": None, "sequence_bias": None, "dola_layers": None},
}


class Decoding(NamedTuple):
    """banned: ids never sampled; banned_first: ids never sampled as the first token; last: the id forced at the maximum
    length; notes: settings that are not applied."""

    banned: tuple[int, ...] = ()
    banned_first: tuple[int, ...] = ()
    last: int | None = None
    notes: tuple[str, ...] = ()


def decoding_of(text: TextFormat) -> Decoding:
    settings = text.generation or {}
    words = settings.get("bad_words_ids") or []
    single = tuple(word[0] for word in words if len(word) == 1)
    last = settings.get("forced_eos_token_id")
    asked = [f"{k}={settings[k]}" for k, nothing in NOT_APPLIED.items() if settings.get(k) not in (None, nothing)]
    asked += ["bad_words_ids of several tokens"] if len(single) < len(words) else []
    notes = (f"generation_config.json asks for {', '.join(asked)}, which is not applied",) if asked else ()
    return Decoding(
        tuple(settings.get("suppress_tokens") or ()) + single,
        tuple(settings.get("begin_suppress_tokens") or ()),
        last[0] if isinstance(last, list) else last,
        notes,
    )


def languages(tokenizer: Tokenizer) -> dict[str, int]:
    """The ids of languages by their codes."""
    found = {}
    for piece in tokenizer.markers:
        if match := LANGUAGE.fullmatch(piece):
            found[match[1] or piece] = tokenizer.piece_id(piece)
    return found


def in_languages(text: TextFormat, source: str | None = None, target: str | None = None) -> TextFormat:
    """The text format for translating from `source` to `target`. Raises `UserError` for languages that the model does
    not know, and for a model without language tokens."""
    known = languages(text.tokenizer)
    for name, code in (("source_language", source), ("language", target)):
        if code is not None and not known:
            raise UserError(
                f"--{name}={code}: this model has no tokens of languages; leave it out (of Marian's models some read "
                "the language to write at the beginning of the text, as >>fra<<)"
            )
        if code is not None and code not in known:
            raise UserError(f"--{name}={code} is not a language of this model{nearest(code, known)}")
    if source is not None:
        if not set(known.values()) & {*text.before, *text.after}:
            raise UserError(f"--source_language={source}: this model is not told the language of what it reads")
        before, after = (_replaced(ids, known, source) for ids in (text.before, text.after))
        text = text._replace(before=before, after=after)
    if target is None:
        return text
    if text.start in known.values():  # mBART's begins with it
        return text._replace(start=known[target])
    return text._replace(generation={**(text.generation or {}), "forced_bos_token_id": known[target]})


def _replaced(ids: tuple[int, ...], known: Mapping[str, int], code: str) -> tuple[int, ...]:
    return tuple(known[code] if i in known.values() else i for i in ids)


def lacks_language(text: TextFormat) -> bool:
    """Whether a multilingual model has not been given a target language."""
    known = languages(text.tokenizer).values()
    forced = (text.generation or {}).get("forced_bos_token_id")
    return len(known) > 1 and text.start is not None and text.start not in known and forced is None
