"""Documents that are there twice, or nearly. The first is kept; training and validation are looked at apart."""

import hashlib
import itertools
import re
from typing import Any

from lm.core.component import component
from lm.core.errors import UserError
from lm.core.optional import package
from lm.core.ranges import Count
from lm.data.transforms.transform import Apply, DocumentTransform, Dropped, TextDocument


@component
class ExactDuplicates(DocumentTransform):
    """Drop documents whose text was there before; 16 bytes of each are kept in memory. `normalized`: texts that differ
    in case, punctuation and white space alone are the same."""

    normalized: bool = False

    def begin(self) -> Apply:
        seen: dict[bytes, str] = {}

        def apply(document: TextDocument) -> str | Dropped:
            text = " ".join(words_of(document.text)) if self.normalized else document.text
            key = hashlib.blake2b(text.encode(), digest_size=16).digest()
            if key in seen:
                return Dropped("documents that were there before", f"as {seen[key]}")
            seen[key] = document.name
            return document.text

        return apply


# What follows a sentence: a line break, or white space behind a mark that ends one; where CJK marks end it, nothing.
BEHIND_SENTENCE = re.compile(
    r"""(?<=\n)(?=\s*\S)|(?<=[.!?\u2026\u061f\u0964])["'\u201d\u2019)\]]*\s+|(?<=[\u3002\uff01\uff1f])"""
)


@component
class SentenceDuplicates(DocumentTransform):
    """Take out sentences that stand in a row of `sentences`, three, which was there before, in this document or
    another: "all but one of any three-sentence span occurring more than once" (C4, Raffel et al. 2020, arXiv
    1910.10683, section 2.2). Case and white space aside. Of a document with fewer sentences nothing is taken; one of
    which all is, is dropped. 8 bytes of each row that is kept are kept in memory.

    (How rows that overlap are counted is not published: a row that shares sentences with its first occurrence is no
    other one, and only rows of which all is kept count as having been there.)"""

    sentences: Count = 3

    def begin(self) -> Apply:
        seen: set[bytes] = set()
        n = self.sentences

        def apply(document: TextDocument) -> str | Dropped:
            parts = sentences_of(document.text)
            plain = [" ".join(part.lower().split()) for part in parts]
            keys = [_key("\n".join(plain[i : i + n])) for i in range(len(parts) - n + 1)]
            kept, first = [True] * len(parts), dict[bytes, int]()
            for i, key in enumerate(keys):
                if key in seen:
                    kept[i : i + n] = [False] * n
            for i, key in enumerate(keys):
                at = first.get(key)
                if at is None or not all(kept[at : at + n]):
                    first[key] = i
                elif i >= at + n:
                    kept[i : i + n] = [False] * n
            seen.update(key for i, key in enumerate(keys) if all(kept[i : i + n]))
            if not any(kept):
                return Dropped("documents all of whose sentences were there before", f"{len(parts)} sentences")
            return "".join(part for part, stays in zip(parts, kept, strict=True) if stays)

        return apply


@component
class NearDuplicates(DocumentTransform):
    """Drop documents that share most of their n-grams with one before: MinHash with locality-sensitive hashing
    (Broder 1997; Lee et al. 2022, arXiv 2107.06499, appendix A, who drop at a similarity of 0.8). Needs the extra
    `clean`.

    threshold: Jaccard similarity of the sets of n-grams from which on a document is dropped, as estimated
    n: words of an n-gram, normalised as in `ExactDuplicates`; a shorter text is one n-gram
    permutations: hashes of each document; the estimate's standard error is at most half of 1 / sqrt of that
    seed: of the hashes"""

    threshold: float = 0.8
    n: Count = 5
    permutations: Count = 128
    seed: int = 0

    def __post_init__(self) -> None:
        if not 0 < self.threshold <= 1:
            raise UserError(f"threshold={self.threshold} of similarity: give more than 0 and at most 1")

    def begin(self) -> Apply:
        datasketch: Any = package("datasketch", "NearDuplicates", "clean")
        # What the index proposes is checked, so it had better propose too much.
        index = datasketch.MinHashLSH(threshold=self.threshold, num_perm=self.permutations, weights=(0.1, 0.9))
        # of the documents kept, by their number: names may recur
        hashes: list[tuple[str, Any]] = []

        def apply(document: TextDocument) -> str | Dropped:
            own = datasketch.MinHash(num_perm=self.permutations, seed=self.seed + 1)
            own.update_batch([gram.encode() for gram in sorted(ngrams(document.text, self.n))])
            for i in sorted(index.query(own)):
                name, other = hashes[i]
                if (alike := own.jaccard(other)) >= self.threshold:
                    return Dropped("documents much like one before", f"{alike:.2f} as {name}")
            index.insert(len(hashes), own)
            hashes.append((document.name, own))
            return document.text

        return apply


def sentences_of(text: str) -> list[str]:
    """The sentences of a text, each with the white space behind it: together they are the text."""
    ends = [found.end() for found in BEHIND_SENTENCE.finditer(text) if 0 < found.end() < len(text)]
    return [text[start:end] for start, end in itertools.pairwise([0, *dict.fromkeys(ends), len(text)])]


def _key(text: str) -> bytes:
    return hashlib.blake2b(text.encode(), digest_size=8).digest()


def words_of(text: str) -> list[str]:
    return re.findall(r"\w+", text.lower())


def ngrams(text: str, n: int) -> set[str]:
    """The set of a text's n-grams of normalised words."""
    words = words_of(text)
    return {" ".join(words[i : i + n]) for i in range(max(1, len(words) - n + 1))}


def similarity(one: str, other: str, n: int = 5) -> float:
    """The Jaccard similarity of two texts' sets of n-grams."""
    a, b = ngrams(one, n), ngrams(other, n)
    return len(a & b) / len(a | b)
