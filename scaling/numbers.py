"""Numbers as people write them in tables: 1,234,567 and 1 234 567, 3,5 for 3.5, 70B and 1.4T."""

import re
from collections.abc import Sequence

DECIMAL_COMMA = re.compile(r"[+-]?\d+,\d+([eE][+-]?\d+)?")
THOUSANDS = re.compile(r"[+-]?[1-9]\d{0,2}(,\d{3})+(\.\d*)?")
SPACED = re.compile(r"[+-]?[1-9]\d{0,2}([ \u00a0\u2009\u202f']\d{3})+([.,]\d*)?")
COUNTED = re.compile(r"(.*\d)\s*([KMBGT])", re.IGNORECASE)
FACTORS = {"K": 1e3, "M": 1e6, "B": 1e9, "G": 1e9, "T": 1e12}


def number_of(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None


def numbers_of(texts: Sequence[str]) -> list[float | None]:
    """What the texts of one column say, None for what is no number. A comma before three digits is one of thousands if
    another of the column, or a point after it, says so; else nobody can tell 1,234 from 1.234."""
    parts = [COUNTED.fullmatch(text) for text in texts]
    bare = [text if part is None else part[1] for text, part in zip(texts, parts, strict=True)]
    commas = [text for text in bare if "," in text]
    grouped = all(THOUSANDS.fullmatch(text) for text in commas)
    told = any(text.count(",") > 1 or "." in text for text in commas)
    decimal = all(DECIMAL_COMMA.fullmatch(text) for text in commas) and not grouped
    numbers = [_number(text, "" if grouped and told else "." if decimal else ",") for text in bare]
    factors = [1.0 if part is None else FACTORS[part[2].upper()] for part in parts]
    return [None if v is None else v * factor for v, factor in zip(numbers, factors, strict=True)]


def _number(text: str, comma: str) -> float | None:
    """`comma` is what one stands for."""
    if SPACED.fullmatch(text):
        return number_of(re.sub(r"[\s']", "", text).replace(",", "."))
    return number_of(text.replace(",", comma))
