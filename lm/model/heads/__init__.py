"""From the stack's output to predictions: the protocol, and heads of many families; others: `lm.model.special`."""

from lm.model.heads.classify import FirstTokenFeature, SequenceClassifier, TokenClassifier
from lm.model.heads.language import LMHead, TransformHead
from lm.model.heads.protocol import AHEAD, ROW_LABELS, TOKEN_LABELS, TOKENS, Head, HeadLoss, LossTerms
from lm.model.heads.several import Heads, NoHead

__all__ = [
    "AHEAD",
    "ROW_LABELS",
    "TOKENS",
    "TOKEN_LABELS",
    "FirstTokenFeature",
    "Head",
    "HeadLoss",
    "Heads",
    "LMHead",
    "LossTerms",
    "NoHead",
    "SequenceClassifier",
    "TokenClassifier",
    "TransformHead",
]
