"""Rules of quality over documents: Gopher's (Rae et al. 2021, arXiv 2112.11446, appendix A.1.1) and C4's (Raffel et al.
2020, arXiv 1910.10683, section 2.2). Words are what white space separates."""

import re
from collections import Counter
from collections.abc import Sequence

from lm.core.component import component
from lm.core.errors import UserError
from lm.core.ranges import CountOrNone, Share
from lm.data.transforms.transform import DocumentTransform, Dropped, TextDocument

STOP_WORDS = ("the", "be", "to", "of", "and", "that", "have", "with")
BULLETS = ("-", "*", "\u2022", "\u2023", "\u25e6", "\u25aa", "\u25cf", "\u2013")
ELLIPSES = ("...", "\u2026")
LINE_ENDS = (".", "!", "?", '"', "\u201d")  # "a terminal punctuation mark": period, exclamation, question, end quote
POLICIES = ("terms of use", "privacy policy", "cookie policy", "uses cookies", "use of cookies", "use cookies")
CITATIONS = re.compile(r"\[(?:\d+|edit|citation needed)\]", re.IGNORECASE)
SENTENCE = re.compile(r"[.!?]+[\"\u201d')\]]*(?:\s|$)")


@component
class QualityRules(DocumentTransform):
    """Drop documents that do not read like text (Gopher).

    words: least and most words
    word_length: least and most mean length of a word, in characters
    symbols: most hash signs, and most ellipses, for each word
    bullets, ellipses: most of the lines that may begin with a bullet point, that may end with an ellipsis
    alphabetic: least share of the words that have a letter
    stop_words: least number of different ones among "the", "be", "to", "of", "and", "that", "have", "with"; 0 for text
        that is not English"""

    words: tuple[int, int] = (50, 100_000)
    word_length: tuple[float, float] = (3.0, 10.0)
    symbols: Share = 0.1
    bullets: Share = 0.9
    ellipses: Share = 0.3
    alphabetic: Share = 0.8
    stop_words: CountOrNone = 2

    def __post_init__(self) -> None:
        for name in ("words", "word_length"):
            least, most = getattr(self, name)
            if least > most:
                raise UserError(f"{name}={(least, most)}: give the least first")

    def __call__(self, document: TextDocument) -> str | Dropped:
        text, words = document.text, document.text.split()
        (fewest, most), (shortest, longest), n = self.words, self.word_length, len(words)
        if n < fewest:
            return Dropped(f"documents of fewer than {fewest} words", f"{n} words")
        if n > most:
            return Dropped(f"documents of more than {most:,} words", f"{n:,} words")
        if not shortest <= (mean := sum(map(len, words)) / n) <= longest:
            return Dropped(f"documents whose words are not {shortest:g} to {longest:g} characters long", f"{mean:.1f}")
        for name, signs in (("hash signs", ("#",)), ("ellipses", ELLIPSES)):
            if (share := sum(map(text.count, signs)) / n) > self.symbols:
                return Dropped(f"documents with more than {self.symbols:g} {name} a word", f"{share:.2f}")
        lines = [line.strip() for line in text.splitlines() if line.strip()]
        if (share := _share(lines, lambda line: line.startswith(BULLETS))) > self.bullets:
            return Dropped(f"documents with bullets before more than {self.bullets:.0%} of lines", f"{share:.0%}")
        if (share := _share(lines, lambda line: line.endswith(ELLIPSES))) > self.ellipses:
            return Dropped(f"documents with ellipses behind more than {self.ellipses:.0%} of lines", f"{share:.0%}")
        if (share := _share(words, lambda word: any(map(str.isalpha, word)))) < self.alphabetic:
            return Dropped(f"documents with letters in less than {self.alphabetic:.0%} of words", f"{share:.0%}")
        found = {word.strip(".,;:!?\"'()").lower() for word in words} & {*STOP_WORDS}
        if len(found) < self.stop_words:
            return Dropped(f"documents with fewer than {self.stop_words} stop words", f"{len(found)}")
        return text


def _share(items: Sequence[str], holds) -> float:  # type: ignore[no-untyped-def]
    return sum(map(holds, items)) / max(1, len(items))


TOP_NGRAMS = ((2, 0.20), (3, 0.18), (4, 0.16))
DUPLICATE_NGRAMS = ((5, 0.15), (6, 0.14), (7, 0.13), (8, 0.12), (9, 0.11), (10, 0.10))


@component
class RepetitionRules(DocumentTransform):
    """Drop documents that repeat themselves (Gopher, table A1). The shares that a document may have at most:

    lines, paragraphs: of lines, and of paragraphs, that were there before
    line_characters, paragraph_characters: of characters in these
    top: ((n, share), ...) of characters of words in the n-gram that covers most of them, if it occurs twice
    duplicate: ((n, share), ...) of characters of words in any n-grams that occur twice, each word counted once"""

    lines: Share = 0.30
    paragraphs: Share = 0.30
    line_characters: Share = 0.20
    paragraph_characters: Share = 0.20
    top: tuple[tuple[int, float], ...] = TOP_NGRAMS
    duplicate: tuple[tuple[int, float], ...] = DUPLICATE_NGRAMS

    def __call__(self, document: TextDocument) -> str | Dropped:
        text = document.text
        for what, parts, most, most_characters in (
            ("lines", text.splitlines(), self.lines, self.line_characters),
            ("paragraphs", re.split(r"\n\s*\n", text), self.paragraphs, self.paragraph_characters),
        ):
            share, characters = repeated([part.strip() for part in parts if part.strip()])
            if share > most:
                return Dropped(f"documents with more than {most:.0%} repeated {what}", f"{share:.0%}")
            if characters > most_characters:
                reason = f"documents with more than {most_characters:.0%} of characters in repeated {what}"
                return Dropped(reason, f"{characters:.0%}")
        words = text.split()
        for n, most in self.top:
            if (share := top_ngram(words, n)) > most:
                return Dropped(f"documents with more than {most:.0%} of characters in one {n}-gram", f"{share:.0%}")
        for n, most in self.duplicate:
            if (share := duplicate_ngrams(words, n)) > most:
                reason = f"documents with more than {most:.0%} of characters in repeated {n}-grams"
                return Dropped(reason, f"{share:.0%}")
        return text


def repeated(parts: Sequence[str]) -> tuple[float, float]:
    """The share of parts that were there before, and of characters in these."""
    seen: set[str] = set()
    again = [part for part in parts if part in seen or seen.add(part)]  # type: ignore[func-returns-value]
    return len(again) / max(1, len(parts)), sum(map(len, again)) / max(1, sum(map(len, parts)))


def top_ngram(words: Sequence[str], n: int) -> float:
    """The largest share of the words' characters that occurrences of one n-gram make up, of those that occur twice."""
    counts = Counter(zip(*(words[i:] for i in range(n)), strict=False))
    covered = (count * sum(map(len, ngram)) for ngram, count in counts.items() if count > 1)
    return max(covered, default=0) / max(1, sum(map(len, words)))


def duplicate_ngrams(words: Sequence[str], n: int) -> float:
    """The share of the words' characters that lie in n-grams which occur twice or more."""
    counts = Counter(grams := list(zip(*(words[i:] for i in range(n)), strict=False)))
    inside = {i + j for i, gram in enumerate(grams) if counts[gram] > 1 for j in range(n)}
    return sum(len(words[i]) for i in inside) / max(1, sum(map(len, words)))


@component
class LineRules(DocumentTransform):
    """Keep the lines of web pages that are sentences, and pages that have enough of them (C4).

    Citation marks such as [1] are taken out. Lines go that do not end in a terminal punctuation mark, or end in an
    ellipsis, have fewer than `line_words` words, or speak of JavaScript or of cookies and policies; pages that say
    "lorem ipsum" or any of `bad_words`, that hold a curly bracket, or are left with fewer than `sentences` sentences.
    (Spans that repeat between pages, which C4 removes too, are for `NearDuplicates`.)"""

    line_words: CountOrNone = 5
    sentences: CountOrNone = 3
    bad_words: tuple[str, ...] = ()

    def __call__(self, document: TextDocument) -> str | Dropped:
        lower = document.text.lower()
        if "lorem ipsum" in lower:
            return Dropped('documents with "lorem ipsum"')
        if "{" in document.text:
            return Dropped("documents with a curly bracket")
        if found := next((word for word in self.bad_words if _word(word).search(lower)), None):
            return Dropped("documents with a word of bad_words", found)
        lines = (line.strip() for line in CITATIONS.sub("", document.text).splitlines())
        text = "\n".join(line for line in lines if self._is_text(line))
        if (n := len(SENTENCE.findall(text))) < self.sentences:
            return Dropped(f"documents of fewer than {self.sentences} sentences", f"{n} sentences")
        return text

    def _is_text(self, line: str) -> bool:
        lower = line.lower()
        return (
            line.endswith(LINE_ENDS)
            and not line.endswith(ELLIPSES)
            and len(line.split()) >= self.line_words
            and "javascript" not in lower
            and not any(notice in lower for notice in POLICIES)
        )


def _word(word: str) -> re.Pattern[str]:
    """Whole words; the cache of `re` keeps it."""
    return re.compile(rf"(?<!\w){re.escape(word.lower())}(?!\w)")
