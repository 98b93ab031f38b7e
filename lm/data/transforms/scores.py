"""Documents by what a field says of them, or by their language."""

from typing import Any

from lm.core.component import component
from lm.core.errors import UserError
from lm.core.optional import package
from lm.core.ranges import Share
from lm.data.transforms.transform import Apply, DocumentTransform, Dropped, TextDocument


@component
class ScoreRange(DocumentTransform):
    """Drop documents whose score, a number in a field of their record, is not within `least` to `most`."""

    field: str
    least: float | None = None
    most: float | None = None

    @property
    def fields(self) -> tuple[str, ...]:
        return (self.field,)

    def __call__(self, document: TextDocument) -> str | Dropped:
        score = score_of(document, self.field)
        if self.least is not None and score < self.least:
            return Dropped(f"documents of a {self.field} below {self.least:g}", f"{score:g}")
        if self.most is not None and score > self.most:
            return Dropped(f"documents of a {self.field} above {self.most:g}", f"{score:g}")
        return document.text


def score_of(document: TextDocument, field: str) -> float:
    """A number in a field of a document's record. Tables hold numbers as text. Raises `UserError` for none."""
    value = document.values.get(field)
    try:
        return float(value)  # type: ignore[arg-type]
    except (TypeError, ValueError) as e:
        raise UserError(f"{document.name}: field {field!r} is {value!r}, no number: name a field of scores") from e


@component
class InLanguages(DocumentTransform):
    """Drop documents of other languages than these: by a field that names them, or else as py3langid finds (Lui and
    Baldwin 2012; extra `clean`), with a probability of `least` (C4 asks for 0.99 of another detector). `characters`:
    how much of a text is looked at."""

    languages: tuple[str, ...]
    field: str = ""
    least: Share = 0.5
    characters: int = 10_000

    def __post_init__(self) -> None:
        if not self.languages:
            raise UserError("languages=() keeps no document: name some, such as en")

    @property
    def fields(self) -> tuple[str, ...]:
        return (self.field,) if self.field else ()

    def begin(self) -> Apply:
        if self.field:
            return lambda document: self._judged(document, document.values.get(self.field), 1.0)
        langid: Any = package("py3langid.langid", "InLanguages", "clean")
        identifier = langid.LanguageIdentifier.from_model_file(langid.MODEL_FILE, norm_probs=True)
        if unknown := sorted({*self.languages} - {*identifier.labels}):
            raise UserError(f"languages: {unknown[0]!r} is none that py3langid knows: {', '.join(identifier.labels)}")
        return lambda document: self._judged(document, *identifier.classify(document.text[: self.characters]))

    def _judged(self, document: TextDocument, language: Any, probability: float) -> str | Dropped:
        if language not in self.languages:
            return Dropped(f"documents not in {' or '.join(self.languages)}", f"{language}")
        if probability < self.least:
            return Dropped(
                f"documents in {' or '.join(self.languages)} with less than {self.least:g}", str(probability)
            )
        return document.text
