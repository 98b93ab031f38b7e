"""From the stack's output to predictions: the protocol and the heads there are."""

from lm.model.heads.classify import FirstTokenFeature, SequenceClassifier, TokenClassifier
from lm.model.heads.language import LMHead, TransformHead
from lm.model.heads.multi_token import MultiTokenHead
from lm.model.heads.protocol import AHEAD, TOKENS, Head, HeadLoss, LossTerms
from lm.model.heads.several import Heads, NoHead, StreamHead
from lm.model.heads.spans import SpanBoundary

__all__ = [
    "AHEAD",
    "TOKENS",
    "FirstTokenFeature",
    "Head",
    "HeadLoss",
    "Heads",
    "LMHead",
    "LossTerms",
    "MultiTokenHead",
    "NoHead",
    "SequenceClassifier",
    "SpanBoundary",
    "StreamHead",
    "TokenClassifier",
    "TransformHead",
]
