"""Documents that are there twice, or nearly. The first is kept; training and validation are looked at apart."""

import hashlib
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
