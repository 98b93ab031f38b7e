"""Special tokens that a vocabulary may have under several names."""

from collections.abc import Iterable

from lm.text.tokenizers import Tokenizer

# What published vocabularies call them.
MASKS = ("[MASK]", "<mask>", "<special1>")
LONG_MASKS, SENTENCE_MASKS = ("[gMASK]",), ("[sMASK]",)
SPAN_STARTS, SPAN_ENDS = ("[sop]", "<sop>", "<|startofpiece|>"), ("[eop]", "<eop>", "<|endofpiece|>")


def mask_of(tokenizer: Tokenizer) -> int | None:
    """The token that hides another, if a vocabulary has one."""
    return first_of(tokenizer, (tokenizer.special.get("mask"), *MASKS))


def first_of(tokenizer: Tokenizer, names: Iterable[str | None]) -> int | None:
    """The special token of the first of these names that a vocabulary has."""
    markers = set(tokenizer.markers)
    return next((tokenizer.piece_id(name) for name in names if name is not None and name in markers), None)
