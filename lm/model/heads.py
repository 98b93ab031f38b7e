"""From the stack's output to predictions. A head maps states x [B, S, d] to float32 scores; `ctx.rows` holds the rows
that the states stand for, `tokens` among them, where the whole model is called."""

from typing import Any

import jax
import jax.numpy as jnp

from lm.core.component import component
from lm.core.ctx import Ctx, constrain
from lm.core.errors import UserError, nearest
from lm.core.leaf import dot
from lm.core.param import Initializer, Normal, Param, Tree
from lm.model.layers import ZEROS, Norm, activation, linear, linear_spec

Array = jax.Array


@component
class LMHead:
    """Logits over the vocabulary: scale * x W^T (+ b). W is [vocab, d], so that it can be tied to the token table.

    `width`: a projection to that width comes before (OPT 350M); `cap`: logits l become cap * tanh(l / cap) (Gemma 2,
    arXiv 2408.00118)."""

    vocab: int
    bias: bool = False
    scale: float = 1.0  # of the input; T5's tied head has d ** -0.5
    cap: float | None = None
    width: int | None = None
    init: Initializer = Normal()

    def spec(self, d: int) -> Tree:
        spec = {"w": Param((self.vocab, self.width or d), ("vocab", "embed"), self.init)}
        spec |= {"b": Param((self.vocab,), ("vocab",), ZEROS, "bias")} if self.bias else {}
        return spec | (
            {"project": linear_spec((d, self.width), ("embed", None), False, self.init)} if self.width else {}
        )

    def __call__(self, p: Tree, x: Array, ctx: Ctx) -> Array:
        """x [..., d] -> float32 logits [..., vocab]."""
        x = linear(p["project"], x) if self.width else x
        logits = dot(x * self.scale, p["w"], transpose=True, dtype=jnp.float32)
        logits = logits + p["b"] if self.bias else logits
        logits = self.cap * jnp.tanh(logits / self.cap) if self.cap else logits
        return constrain(logits, ctx, "batch", *(None,) * (x.ndim - 2), "vocab")


@component
class TransformHead:
    """BERT's masked-LM head: dense (to `width`, ALBERT), activation, norm, then an `LMHead` (Devlin et al. 2019, arXiv
    1810.04805)."""

    head: LMHead
    norm: Norm
    activation: str = "gelu"
    width: int | None = None
    init: Initializer = Normal()

    def spec(self, d: int) -> Tree:
        width = self.width or d
        dense = linear_spec((d, width), ("embed", None), True, self.init)
        return {"dense": dense, "norm": self.norm.spec(width), "lm": self.head.spec(width)}

    def __call__(self, p: Tree, x: Array, ctx: Ctx) -> Array:
        x = self.norm(p["norm"], activation(self.activation)(linear(p["dense"], x)))
        return self.head(p["lm"], x, ctx)


@component
class TokenScores:
    """`outputs` scores for each token: tags, starts and ends of answers, or with `activation`, behind a dense layer,
    whether a token was replaced (ELECTRA, Clark et al. 2020, arXiv 2003.10555)."""

    outputs: int
    activation: str | None = None
    bias: bool = True
    init: Initializer = Normal()

    def spec(self, d: int) -> Tree:
        dense = {"dense": linear_spec((d, d), ("embed", "embed"), True, self.init)} if self.activation else {}
        return dense | {"out": linear_spec((d, self.outputs), ("embed", None), self.bias, self.init)}

    def __call__(self, p: Tree, x: Array, ctx: Ctx) -> Array:
        """x [..., d] -> float32 scores [..., outputs]."""
        x = activation(self.activation)(linear(p["dense"], x)) if self.activation else x
        return linear(p["out"], x).astype(jnp.float32)


PLACES = ("first", "last", "end")


@component
class RowScores:
    """`outputs` scores for each row, from the state of one token: its first real one, its last, or the last whose id is
    `end` (BART). With `activation` behind a dense layer, which is BERT's pooler; without outputs the pooled state
    itself is the result. Padding (segment 0) is passed over."""

    outputs: int | None = None
    at: str = "first"
    end: int | None = None
    activation: str | None = None
    bias: bool = True
    init: Initializer = Normal()

    def __post_init__(self) -> None:
        if self.at not in PLACES:
            raise UserError(f"at={self.at!r} of a head is unknown{nearest(self.at, PLACES)}")
        if (self.at == "end") != (self.end is not None):
            raise UserError(f"a head at={self.at!r} has end={self.end}: give `end`, a token's id, with at='end' only")

    def spec(self, d: int) -> Tree:
        dense = {"dense": linear_spec((d, d), ("embed", "embed"), True, self.init)} if self.activation else {}
        if self.outputs is None:
            return dense
        return dense | {"out": linear_spec((d, self.outputs), ("embed", None), self.bias, self.init)}

    def __call__(self, p: Tree, x: Array, ctx: Ctx) -> Array:
        """x [B, S, d] -> float32 scores [B, outputs], or [B, d]."""
        length = x.shape[1]
        index = jnp.broadcast_to(jnp.arange(length), x.shape[:2])
        real = ctx.rows["segments"] > 0 if "segments" in ctx.rows else jnp.ones(x.shape[:2], bool)
        if self.at == "end":
            real &= ctx.rows["tokens"] == self.end
        place = jnp.min(jnp.where(real, index, length - 1), axis=1)
        if self.at != "first":
            place = jnp.max(jnp.where(real, index, 0), axis=1)
        state = jnp.take_along_axis(x, place[:, None, None], axis=1)[:, 0]
        state = activation(self.activation)(linear(p["dense"], state)) if self.activation else state
        return (state if self.outputs is None else linear(p["out"], state)).astype(jnp.float32)


@component
class States:
    """No head: the states themselves."""

    def spec(self, d: int) -> Tree:
        return {}

    def __call__(self, p: Tree, x: Array, ctx: Ctx) -> Array:
        return x.astype(jnp.float32)


@component
class Heads:
    """Several heads on the same states; the result is a dict with the scores of each, by name."""

    parts: tuple[tuple[str, Any], ...]

    def spec(self, d: int) -> Tree:
        return {name: head.spec(d) for name, head in self.parts}

    def __call__(self, p: Tree, x: Array, ctx: Ctx) -> dict[str, Array]:
        return {name: head(p[name], x, ctx.at(name)) for name, head in self.parts}


Head = LMHead | TransformHead | TokenScores | RowScores | States | Heads
