"""Special tokens that a vocabulary may have under several names."""

from lm.text.tokenizers import Tokenizer

MASKS = ("[MASK]", "<mask>", "<special1>")  # what published vocabularies call it


def mask_of(tokenizer: Tokenizer) -> int | None:
    """The token that hides another, if a vocabulary has one."""
    names = (tokenizer.special.get("mask"), *MASKS)
    return next((tokenizer.piece_id(name) for name in names if name in tokenizer.markers), None)
