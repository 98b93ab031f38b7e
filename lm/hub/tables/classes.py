"""Classes that many model types have: what stands in `architectures` of config.json, and by what head."""

from lm.hub.tables.format import HFClass, label_count
from lm.hub.tables.tensor_names import entries
from lm.model.heads import NoHead, SequenceClassifier, TokenClassifier

BASE_MODEL = HFClass(head=lambda config: NoHead())
SEQUENCE = HFClass(  # of generators: by the state of a row's last token
    head=lambda config: SequenceClassifier(label_count(config), at="last", bias=False),
    names=entries("head/", "", ("out", "score")),
)
ANSWERS = HFClass(head=lambda config: TokenClassifier(2), names=entries("head/", "", ("out", "qa_outputs")))


def token_classifier(name: str) -> HFClass:
    """A classifier of each token, whose linear map has that name."""
    return HFClass(head=lambda config: TokenClassifier(label_count(config)), names=entries("head/", "", ("out", name)))


def generation_classes(
    stem: str,
    lm: str = "ForCausalLM",
    base: str = "Model",
    sequences: bool = True,
    tokens: str | None = "score",
    answers: HFClass | None = None,
) -> dict[str, HFClass]:
    """The classes of a generator: language model, base model and, where there are such, classifiers of rows (by their
    last tokens' states) and of tokens (whose linear map is called `tokens`), and of answers' ends."""
    found = {f"{stem}{lm}": HFClass(), f"{stem}{base}": BASE_MODEL}
    found |= {f"{stem}ForSequenceClassification": SEQUENCE} if sequences else {}
    found |= {f"{stem}ForTokenClassification": token_classifier(tokens)} if tokens else {}
    return found | ({f"{stem}ForQuestionAnswering": answers} if answers else {})
