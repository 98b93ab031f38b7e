"""Special tokens that a vocabulary may have under several names."""

from collections.abc import Iterable

from lm.core.errors import UserError
from lm.text.tokenizers import Tokenizer

# What published vocabularies call them.
MASKS = ("[MASK]", "<mask>", "<special1>")
FIRSTS, SEPARATORS = ("[CLS]", "<s>"), ("[SEP]", "</s>")  # what a text begins with, and ends with
LONG_MASKS, SENTENCE_MASKS = ("[gMASK]",), ("[sMASK]",)
SPAN_STARTS, SPAN_ENDS = ("[sop]", "<sop>", "<|startofpiece|>"), ("[eop]", "<eop>", "<|endofpiece|>")
# What a denoiser's inputs begin with: regular, sequential and extreme denoising, a text to continue, one to write
# without any inputs.
MODE_NAMES = {
    "R": ("[R]", "[NLU]"),
    "S": ("[S]", "[S2S]"),
    "X": ("[X]", "[NLG]"),
    "CLM": ("[CLM]",),
    "CDec": ("[CDec]",),
}
# What a decoder begins with where its task is to write the code of a text, the text of a code, or to tell whether both
# belong together (CodeT5+, whose encoder reads one of `FIRSTS` before either).
PAIR_TASKS = {"code": ("[CDec]",), "text": ("[TDec]",), "match": ("[Match]",)}
# Of what comes before, after and in the middle, where a middle is filled in.
MIDDLES = (
    ("<|fim_prefix|>", "<|fim_suffix|>", "<|fim_middle|>"),
    ("<fim_prefix>", "<fim_suffix>", "<fim_middle>"),
    ("<fim-prefix>", "<fim-suffix>", "<fim-middle>"),
    ("<PRE>", "<SUF>", "<MID>"),
    ("\u2581<PRE>", "\u2581<SUF>", "\u2581<MID>"),
    ("[PREFIX]", "[SUFFIX]", "[MIDDLE]"),
    ("<\uff5cfim\u2581begin\uff5c>", "<\uff5cfim\u2581hole\uff5c>", "<\uff5cfim\u2581end\uff5c>"),
)
MIDDLE_ENDS = ("\u2581<EOT>", "<EOT>")  # what some write behind a middle in place of an end-of-text


def mask_of(tokenizer: Tokenizer) -> int | None:
    """The token that hides another, if a vocabulary has one."""
    return first_of(tokenizer, (tokenizer.special.get("mask"), *MASKS))


def first_of(tokenizer: Tokenizer, names: Iterable[str | None]) -> int | None:
    """The special token of the first of these names that a vocabulary has."""
    markers = set(tokenizer.markers)
    return next((tokenizer.piece_id(name) for name in names if name is not None and name in markers), None)


def middle_of(tokenizer: Tokenizer) -> tuple[int, int, int] | None:
    """The tokens before a prefix, a suffix and a middle, if a vocabulary has them."""
    for names in MIDDLES:
        if all(name in tokenizer.markers for name in names):
            prefix, suffix, middle = map(tokenizer.piece_id, names)
            return prefix, suffix, middle
    return None


def kept_of(tokenizer: Tokenizer) -> tuple[int, ...]:
    """The ids that stand around texts, and padding, of which nothing is to be learned: they are never hidden."""
    first = first_of(tokenizer, (tokenizer.special.get("cls"), *FIRSTS))
    separator = first_of(tokenizer, (tokenizer.special.get("sep"), *SEPARATORS))
    ids = (tokenizer.eos_id, tokenizer.pad_id, tokenizer.bos_id, first, separator)
    return tuple(dict.fromkeys(i for i in ids if i is not None))


def around_texts(tokenizer: Tokenizer) -> tuple[int, int]:
    """The tokens with which a pair of texts begins, and with which each of the two ends. Raises `UserError`."""
    first = first_of(tokenizer, (tokenizer.special.get("cls"), *FIRSTS))
    separator = first_of(tokenizer, (tokenizer.special.get("sep"), *SEPARATORS))
    if first is None or separator is None:
        names = {"[CLS]": first, "[SEP]": separator}
        lacking = [name for name, found in names.items() if found is None]
        raise UserError(
            f"the tokenizer has no {' and no '.join(lacking)} to put around pairs of texts: add them with "
            f"config.data.reserved={lacking}"
        )
    return first, separator
