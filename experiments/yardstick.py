"""What experiments/objectives.py judges by: texts with labels, and continuations of held-out windows."""

import csv
import dataclasses
import gzip
import itertools
import json
import random
from collections.abc import Iterable
from pathlib import Path

import numpy as np

from lm.core.errors import UserError
from lm.data.sources import STDLIB, open_source
from lm.objectives.examples.builder import Example, Row

PARTS = ("text", "held-out", "labelled", "labelled-held-out")


def corpus(folder: Path, addresses: Path, book: Path) -> tuple[str, ...]:
    """Write text to train on, text held out, and labelled texts of both kinds as JSON lines. Returns the two labels.

    addresses: year, president, party and sentences of State of the Union addresses, as a gzipped table; the years
    divisible by 5 are held out. Where it is absent the text is the Python standard library's, and the label says
    whether a piece of ten lines is in order. book: more text to train on, if it is there."""
    folder.mkdir(parents=True, exist_ok=True)
    made, labels = _from_addresses(addresses) if addresses.exists() else _from_code()
    if addresses.exists() and book.exists():
        made["text"].append({"text": book.read_text()})
    for part in PARTS:
        lines = (json.dumps(record) + "\n" for record in made[part])
        (folder / f"{part}.jsonl").write_text("".join(lines))
    return labels


def _from_addresses(path: Path) -> tuple[dict[str, list], tuple[str, ...]]:
    try:
        with gzip.open(path, "rt", encoding="utf-8") as file:
            rows = [(int(year), who, party, text) for year, who, party, text in csv.reader(file, delimiter="\t")]
    except (OSError, EOFError, ValueError) as e:
        raise UserError(f"{path} is no gzipped table of year, president, party and text: {e}") from e
    made: dict[str, list] = {part: [] for part in PARTS}
    for (year, _), group in itertools.groupby(rows, lambda row: row[:2]):
        end, said = "-held-out" if year % 5 == 0 else "", list(group)
        made["held-out" if end else "text"].append({"text": " ".join(text for *_, text in said)})
        made[f"labelled{end}"] += [{"text": text, "label": party} for *_, party, text in said]
    return made, ("D", "R")


def _from_code() -> tuple[dict[str, list], tuple[str, ...]]:
    rng, made = random.Random(0), {part: [] for part in PARTS}
    for split, end in (("train", ""), ("validation", "-held-out")):
        for text in (document.text for document in itertools.islice(open_source(STDLIB, split), 200)):
            made["held-out" if end else "text"].append({"text": text})
            lines = text.splitlines(keepends=True)
            for at in range(0, min(len(lines), 200) - 9, 10):
                piece, shuffled = lines[at : at + 10], rng.random() < 0.5
                rng.shuffle(piece) if shuffled else None
                made[f"labelled{end}"].append({"text": "".join(piece), "label": "shuffled" if shuffled else "ordered"})
    return made, ("ordered", "shuffled")


@dataclasses.dataclass(frozen=True)
class Continued:
    """The second half of a row's tokens, predicted from the first as a model's training made natural.

    lead, between: ids before the first half, and behind it
    opening: ids with which what is written begins
    again: whether the first half is written once more before the second
    prefix: whether what is given is marked as a prefix"""

    lead: tuple[int, ...] = ()
    between: tuple[int, ...] = ()
    opening: tuple[int, ...] = ()
    again: bool = False
    prefix: bool = True

    def __call__(self, row: Row, rng: np.random.Generator) -> Example:
        """A packed row of S + 1 tokens -> one stream. Only the second half counts, and only in rows without padding."""
        tokens, sizes = row["tokens"][1:], row["bytes"][1:]
        half = len(tokens) // 2
        given = _ids(self.lead, tokens[:half], self.between)
        begun = _ids(self.opening, tokens[:half] if self.again else ())
        stream = _ids(given, begun, tokens[half:])
        at, first = np.arange(len(stream) - 1), len(given) + len(begun)
        weights = (at >= first - 1) & bool((row["segments"] > 0).all())
        return {
            "tokens": stream[:-1],
            "targets": stream[1:],
            "weights": weights.astype(np.float32),
            "bytes": np.concatenate([np.zeros(first - 1, np.int32), sizes[half:].astype(np.int32)]),
            **({"prefix": at < len(given)} if self.prefix else {}),
        }


def _ids(*parts: Iterable[int]) -> np.ndarray:
    return np.concatenate([np.asarray(list(part), np.int32) for part in parts])


def mean_and_error(found: list[float]) -> tuple[float, float]:
    """The mean, and its standard error (nan of a single value)."""
    error = float(np.std(found, ddof=1) / np.sqrt(len(found))) if len(found) > 1 else float("nan")
    return float(np.mean(found)), error
