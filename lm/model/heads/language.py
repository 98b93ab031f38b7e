"""Heads that score a vocabulary at each position."""

from typing import ClassVar

import jax
import jax.numpy as jnp

from lm.core.component import component
from lm.core.ctx import Ctx, constrain
from lm.core.leaf import dot
from lm.core.param import Initializer, Normal, Param, Tree
from lm.model.heads.protocol import TOKENS, HeadLoss, LossTerms, vocabulary_loss
from lm.model.layers import ZEROS, Norm, activation, linear, linear_spec

Array = jax.Array


@component
class LMHead:
    """Logits over the vocabulary: scale * x W^T (+ b). W is [V, D], so that it can be tied to the token table.

    `width`: a projection to that width comes before (OPT 350M); `cap`: logits l become cap * tanh(l / cap) (Gemma 2,
    arXiv 2408.00118). `offset`: a row that is added and never trained (BART's final_logits_bias)."""

    predicts: ClassVar[str] = TOKENS

    vocab: int
    bias: bool = False
    offset: bool = False
    scale: float = 1.0  # of the input; T5's tied head has d ** -0.5
    cap: float | None = None
    width: int | None = None
    init: Initializer = Normal()

    def spec(self, d: int) -> Tree:
        spec = {"w": Param((self.vocab, self.width or d), ("vocab", "embed"), self.init)}
        spec |= {"b": Param((self.vocab,), ("vocab",), ZEROS, "bias")} if self.bias else {}
        spec |= {"offset": Param((1, self.vocab), (None, "vocab"), ZEROS, "buffer")} if self.offset else {}
        return spec | (
            {"project": linear_spec((d, self.width), ("embed", None), False, self.init)} if self.width else {}
        )

    def __call__(self, p: Tree, x: Array, ctx: Ctx) -> Array:
        """x [..., D] -> float32 logits [..., V]."""
        x = linear(p["project"], x) if self.width else x
        logits = dot(x * self.scale, p["w"], transpose=True, dtype=jnp.float32)
        logits = logits + p["b"] if self.bias else logits
        logits = logits + p["offset"][0] if self.offset else logits
        logits = self.cap * jnp.tanh(logits / self.cap) if self.cap else logits
        return constrain(logits, ctx, "batch", *(None,) * (x.ndim - 2), "vocab")

    def loss(self, p: Tree, x: Array, targets: Array, weights: Array, ctx: Ctx, terms: LossTerms) -> HeadLoss:
        return vocabulary_loss(self, p, x, targets, weights, ctx, terms)


@component
class TransformHead:
    """BERT's masked-LM head: dense (to `width`, ALBERT), activation, norm, then an `LMHead` (Devlin et al. 2019, arXiv
    1810.04805)."""

    predicts: ClassVar[str] = TOKENS
    places: ClassVar = {"head": "lm"}  # of parameters, for `lm.core.ownership`

    head: LMHead
    norm: Norm
    activation: str = "gelu"
    width: int | None = None
    bias: bool = True  # of the dense layer
    init: Initializer = Normal()

    def spec(self, d: int) -> Tree:
        width = self.width or d
        dense = linear_spec((d, width), ("embed", None), self.bias, self.init)
        return {"dense": dense, "norm": self.norm.spec(width), "lm": self.head.spec(width)}

    def __call__(self, p: Tree, x: Array, ctx: Ctx) -> Array:
        x = self.norm(p["norm"], activation(self.activation)(linear(p["dense"], x)))
        return self.head(p["lm"], x, ctx)

    def loss(self, p: Tree, x: Array, targets: Array, weights: Array, ctx: Ctx, terms: LossTerms) -> HeadLoss:
        return vocabulary_loss(self, p, x, targets, weights, ctx, terms)
