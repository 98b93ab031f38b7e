"""Special tokens written into documents. What is spelled so becomes that token where `config.data.records.markers`
lists it; the vocabulary has it by `config.data.reserved`."""

import hashlib
import re

from lm.core.component import component
from lm.core.errors import UserError
from lm.core.ranges import Share
from lm.data.transforms.scores import score_of
from lm.data.transforms.transform import DocumentTransform, Dropped, TextDocument


@component
class WorkToken(DocumentTransform):
    """Put the reasoning that a record gives in another field behind its text, as a working memory (Galactica, Taylor
    et al. 2022, arXiv 2211.09085, section 3.1), and behind that the answer of a third, if one is named:

        What is 2 * 3 + 1? <work> 2 * 3 is 6; 6 + 1 is 7 </work> 7

    Documents without reasoning are left as they are."""

    reasoning: str
    answer: str = ""
    before: str = "<work>"
    after: str = "</work>"

    @property
    def fields(self) -> tuple[str, ...]:
        return (self.reasoning, *(self.answer,) * bool(self.answer))

    def __call__(self, document: TextDocument) -> str | Dropped:
        reasoning, answer = (document.values.get(name) or "" for name in (self.reasoning, self.answer))
        if not str(reasoning).strip():
            return document.text
        parts = (document.text, self.before, str(reasoning), self.after, str(answer))
        return " ".join(part.strip() for part in parts if part.strip())


@component
class MarkedMatches(DocumentTransform):
    """Put tokens around what matches a regular expression (Galactica, section 3.1: [START_REF] .. [END_REF] around
    references, [START_SMILES] .. [END_SMILES] around molecules, [START_DNA] .. [END_DNA], [START_AMINO] ..). Of a
    pattern with a group that is what is kept between them: r"\\\\cite\\{(.*?)\\}"."""

    pattern: str
    before: str
    after: str

    def __post_init__(self) -> None:
        try:
            groups = re.compile(self.pattern).groups
        except re.error as e:
            raise UserError(f"pattern={self.pattern!r} is no regular expression: {e}") from e
        if groups > 1:
            raise UserError(f"pattern={self.pattern!r} has {groups} groups: give one, or write (?:..)")

    def __call__(self, document: TextDocument) -> str | Dropped:
        whole = re.compile(self.pattern).groups == 0
        return re.sub(self.pattern, lambda m: f"{self.before}{m[0] if whole else m[1]}{self.after}", document.text)


@component
class ControlToken(DocumentTransform):
    """Put a token in front of a `share` of the documents that says what a field's score is (PaLM 2, Google 2023, arXiv
    2305.10403: toxicity as low, medium or high, for a small share of the data): `tokens[i]` for scores
    of at least i of the `bounds`. Which documents get one depends on their name and `seed` alone."""

    field: str
    bounds: tuple[float, ...]
    tokens: tuple[str, ...]
    share: Share = 1.0
    seed: int = 0

    def __post_init__(self) -> None:
        if list(self.bounds) != sorted(self.bounds) or len(self.tokens) != len(self.bounds) + 1:
            raise UserError(
                f"{len(self.tokens)} tokens for bounds={self.bounds}: give rising bounds, and one token more than these"
            )

    @property
    def fields(self) -> tuple[str, ...]:
        return (self.field,)

    def __call__(self, document: TextDocument) -> str | Dropped:
        digest = hashlib.blake2b(f"{self.seed}:{document.name}".encode("utf-8", "surrogateescape"), digest_size=8)
        if int.from_bytes(digest.digest(), "big") / 2**64 >= self.share:
            return document.text
        score = score_of(document, self.field)
        return self.tokens[sum(score >= bound for bound in self.bounds)] + document.text
