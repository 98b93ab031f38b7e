"""From the stack's output to predictions: the protocol, and heads of many families; others: `lm.model.special`."""

from lm.model.heads.classify import FirstTokenFeature, SequenceClassifier, TokenClassifier
from lm.model.heads.language import LMHead, TransformHead
from lm.model.heads.protocol import AHEAD, TOKENS, Head, HeadLoss, LossTerms
from lm.model.heads.several import Heads, NoHead

__all__ = [
    "AHEAD",
    "TOKENS",
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
