"""From the stack's output to predictions. A head maps states x [B, S, d] to float32 scores; `ctx.rows` holds the rows
that the states stand for, `tokens` among them, where the whole model is called."""

from typing import Any

import jax
import jax.numpy as jnp

from lm.core.component import component
from lm.core.ctx import Ctx, constrain
from lm.core.errors import UserError, nearest
from lm.core.leaf import dot, take
from lm.core.param import Initializer, Normal, Param, Tree
from lm.model.layers import ZEROS, Norm, RMSNorm, activation, linear, linear_spec
from lm.model.special.adaptive import AdaptiveHead
from lm.model.stack import Stack

Array = jax.Array


@component
class LMHead:
    """Logits over the vocabulary: scale * x W^T (+ b). W is [vocab, d], so that it can be tied to the token table.

    `width`: a projection to that width comes before (OPT 350M); `cap`: logits l become cap * tanh(l / cap) (Gemma 2,
    arXiv 2408.00118). `offset`: a row that is added and never trained (BART's final_logits_bias)."""

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
        """x [..., d] -> float32 logits [..., vocab]."""
        x = linear(p["project"], x) if self.width else x
        logits = dot(x * self.scale, p["w"], transpose=True, dtype=jnp.float32)
        logits = logits + p["b"] if self.bias else logits
        logits = logits + p["offset"][0] if self.offset else logits
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
    bias: bool = True  # of the dense layer
    init: Initializer = Normal()

    def spec(self, d: int) -> Tree:
        width = self.width or d
        dense = linear_spec((d, width), ("embed", None), self.bias, self.init)
        return {"dense": dense, "norm": self.norm.spec(width), "lm": self.head.spec(width)}

    def __call__(self, p: Tree, x: Array, ctx: Ctx) -> Array:
        x = self.norm(p["norm"], activation(self.activation)(linear(p["dense"], x)))
        return self.head(p["lm"], x, ctx)


@component(was=("TokenScores",))
class TokenClassifier:
    """`outputs` scores for each token: tags, starts and ends of answers, or with `activation`, behind a dense layer,
    whether a token was replaced (ELECTRA, Clark et al. 2020, arXiv 2003.10555)."""

    outputs: int
    activation: str | None = None
    norm: Norm | None = None  # of the dense layer's outputs
    dense_bias: bool = True
    bias: bool = True
    init: Initializer = Normal()

    def __post_init__(self) -> None:
        _check_dense(self)

    def spec(self, d: int) -> Tree:
        return _dense_spec(self, d) | {"out": linear_spec((d, self.outputs), ("embed", None), self.bias, self.init)}

    def __call__(self, p: Tree, x: Array, ctx: Ctx) -> Array:
        """x [..., d] -> float32 scores [..., outputs]."""
        return linear(p["out"], _dense(self, p, x)).astype(jnp.float32)


PLACES = ("first", "last", "end", "mean")


@component(was=("RowScores",))
class SequenceClassifier:
    """`outputs` scores for each row, from the state of one token: its first real one, its last, or the last where the
    ids `row` are `end` (with "encoder/tokens" those that the encoder reads: T5, BART); or from the "mean" of all. With
    `activation` behind a dense layer, which is BERT's pooler; without outputs the pooled state itself is the result.
    Padding (segment 0) is passed over."""

    outputs: int | None = None
    at: str = "first"
    end: int | None = None
    row: str = "tokens"
    activation: str | None = None
    norm: Norm | None = None  # of the dense layer's outputs
    dense_bias: bool = True
    bias: bool = True
    init: Initializer = Normal()

    def __post_init__(self) -> None:
        _check_dense(self)
        if self.at not in PLACES:
            raise UserError(f"at={self.at!r} of a head is unknown{nearest(self.at, PLACES)}")
        if (self.at == "end") != (self.end is not None):
            raise UserError(f"a head at={self.at!r} has end={self.end}: give `end`, a token's id, with at='end' only")

    def spec(self, d: int) -> Tree:
        dense = _dense_spec(self, d)
        if self.outputs is None:
            return dense
        return dense | {"out": linear_spec((d, self.outputs), ("embed", None), self.bias, self.init)}

    def __call__(self, p: Tree, x: Array, ctx: Ctx) -> Array:
        """x [B, S, d] -> float32 scores [B, outputs], or [B, d]."""
        length = x.shape[1]
        index = jnp.broadcast_to(jnp.arange(length), x.shape[:2])
        real = ctx.rows["segments"] > 0 if "segments" in ctx.rows else jnp.ones(x.shape[:2], bool)
        if self.at == "end":
            if self.row not in ctx.rows:
                raise UserError(f"a head looks for its end in the rows {self.row!r}{nearest(self.row, ctx.rows)}")
            real &= ctx.rows[self.row] == self.end
        if self.at == "mean":
            share = real / jnp.maximum(real.sum(axis=1, keepdims=True), 1)
            state = jnp.einsum("bs,bsd->bd", share, x.astype(jnp.float32)).astype(x.dtype)
        else:
            place = jnp.min(jnp.where(real, index, length - 1), axis=1)
            if self.at != "first":
                place = jnp.max(jnp.where(real, index, 0), axis=1)
            state = jnp.take_along_axis(x, place[:, None, None], axis=1)[:, 0]
        state = _dense(self, p, state)
        return (state if self.outputs is None else linear(p["out"], state)).astype(jnp.float32)


def _check_dense(head: TokenClassifier | SequenceClassifier) -> None:
    if head.activation is None and (head.norm or not head.dense_bias):
        raise UserError("a head without `activation` has no dense layer: set it, or neither norm nor dense_bias")


def _dense_spec(head: TokenClassifier | SequenceClassifier, d: int) -> Tree:
    if head.activation is None:
        return {}
    spec = {"dense": linear_spec((d, d), ("embed", "embed"), head.dense_bias, head.init)}
    return spec | ({"norm": head.norm.spec(d)} if head.norm else {})


def _dense(head: TokenClassifier | SequenceClassifier, p: Tree, x: Array) -> Array:
    """x [..., d] -> [..., d]"""
    x = activation(head.activation)(linear(p["dense"], x)) if head.activation else x
    return head.norm(p["norm"], x) if head.norm else x


@component(was=("WithFirst",))
class FirstTokenFeature:
    """Scores of each token beside its row's first one: `scores` reads norm(x + x_first), x [B, S, d] (DeBERTa v3 finds
    replaced tokens so: He et al. 2021, arXiv 2111.09543, and the published code)."""

    scores: TokenClassifier
    norm: Norm

    def spec(self, d: int) -> Tree:
        return {"sum_norm": self.norm.spec(d), "scores": self.scores.spec(d)}

    def __call__(self, p: Tree, x: Array, ctx: Ctx) -> Array:
        """x [B, S, d] -> float32 scores [B, S, outputs]."""
        first = SequenceClassifier()({}, x, ctx).astype(x.dtype)
        return self.scores(p["scores"], self.norm(p["sum_norm"], x + first[:, None]), ctx)


@component
class SpanBoundary:
    """SpanBERT's boundary objective: the tokens of a span, from the states beside it (Joshi et al. 2020, arXiv
    1907.10529, section 3.2). Two layers, each dense, activation and norm, read [x_left; x_right; place], then an
    `LMHead`. `places`: rows of the table of places within a span, `place_width` its width.

    The batch's rows [B, S] are `span_left` and `span_right`, the indices of the tokens beside the span that a token is
    in, and `span_place`, its place there from 0. Without them each token is a span of its own."""

    head: LMHead
    norm: Norm
    activation: str = "gelu"
    places: int = 20
    place_width: int = 200
    width: int | None = None  # of the second layer; None: that of the states
    init: Initializer = Normal()

    def spec(self, d: int) -> Tree:
        width = self.width or d
        return {
            "place": {"w": Param((self.places, self.place_width), ("position", None), self.init)},
            "dense1": linear_spec((2 * d + self.place_width, d), (None, "embed"), True, self.init),
            "norm1": self.norm.spec(d),
            "dense2": linear_spec((d, width), ("embed", None), True, self.init),
            "norm2": self.norm.spec(width),
            "lm": self.head.spec(width),
        }

    def __call__(self, p: Tree, x: Array, ctx: Ctx) -> Array:
        """x [B, S, d] -> float32 logits [B, S, vocab]."""
        index = jnp.broadcast_to(jnp.arange(x.shape[1]), x.shape[:2])
        left, right = ctx.rows.get("span_left", index - 1), ctx.rows.get("span_right", index + 1)
        place = jnp.minimum(ctx.rows.get("span_place", jnp.zeros_like(index)), self.places - 1)
        beside = [jnp.take_along_axis(x, jnp.clip(at, 0, x.shape[1] - 1)[..., None], axis=1) for at in (left, right)]
        y = jnp.concatenate([*beside, take(p["place"]["w"], place, x.dtype)], axis=-1)
        for i in (1, 2):
            y = self.norm(p[f"norm{i}"], activation(self.activation)(linear(p[f"dense{i}"], y)))
        return self.head(p["lm"], y, ctx)


@component
class MultiTokenHead:
    """Multi-token prediction (DeepSeek-V3, arXiv 2412.19437, section 2.2): beside the next token, the `depth` after it.

    From the states h_0 = x, depth k makes h_k = module(W [norm(h_{k-1}) | norm(E t_{i+k})]), t_{i+k} being the k-th
    token behind place i; `head` reads token i + k + 1 off it, h_0 included. `module` is usually one of the model's
    blocks and a norm, with parameters of its own at each depth. Head and token table E are for all depths: ties join
    them to the model's (`head/token` and `head/lm/w` to `body/embed/token`)."""

    head: LMHead
    module: Stack
    depth: int = 1
    norm: Norm = RMSNorm()
    init: Initializer = Normal()

    def __post_init__(self) -> None:
        if self.depth < 1:
            raise UserError(f"depth={self.depth} of a multi-token head must be at least 1: use its inner head alone")

    def spec(self, d: int) -> Tree:
        def one() -> Tree:
            return {
                "state_norm": self.norm.spec(d),
                "token_norm": self.norm.spec(d),
                "project": linear_spec((2 * d, d), (None, "embed"), False, self.init),
                "module": self.module.spec(d),
            }

        token = Param((self.head.vocab, d), ("vocab", "embed"), self.init)
        return {"lm": self.head.spec(d), "token": token} | {str(k): one() for k in range(1, self.depth + 1)}

    def states(self, p: Tree, x: Array, ctx: Ctx) -> list[Array]:
        """h_0 to h_depth, each [B, S, d]. The last k of h_k lack the tokens behind them; no others read those."""
        found, tokens = [x], ctx.rows["tokens"]
        for k in range(1, self.depth + 1):
            own = p[str(k)]
            ahead = jnp.pad(tokens, ((0, 0), (0, k)))[:, k:]
            parts = [self.norm(own["state_norm"], found[-1])]
            parts.append(self.norm(own["token_norm"], take(p["token"], ahead, x.dtype)))
            joined = linear(own["project"], jnp.concatenate(parts, axis=-1))
            found.append(self.module(own["module"], joined, ctx.at(str(k)), None)[0])
        return found

    def __call__(self, p: Tree, x: Array, ctx: Ctx) -> dict[str, Array]:
        """Scores by depth ("0": of the next token), each [B, S, vocab]."""
        return {str(k): self.head(p["lm"], h, ctx) for k, h in enumerate(self.states(p, x, ctx))}


@component(was=("States",))
class NoHead:
    """No head: the states themselves."""

    def spec(self, d: int) -> Tree:
        return {}

    def __call__(self, p: Tree, x: Array, ctx: Ctx) -> Array:
        return x.astype(jnp.float32)


@component
class StreamHead:
    """A head on the states of one stream of `lm.model.special.streams`, x [..., (1 + streams) d]; 1 predicts the next
    token."""

    head: LMHead | NoHead
    streams: int = 2
    stream: int = 1

    def spec(self, d: int) -> Tree:
        return self.head.spec(d // (1 + self.streams))

    def __call__(self, p: Tree, x: Array, ctx: Ctx) -> Any:
        return self.head(p, jnp.split(x, 1 + self.streams, axis=-1)[self.stream], ctx)

    def unfolded(self, x: Array, *rows: Array) -> tuple[Any, Array, list[Array]]:
        """What all predictors say: their head, their states [B, streams S, d], and rows [B, S] for each of them. All
        predict what stands next at their place."""
        parts = jnp.split(x, 1 + self.streams, axis=-1)[1:]
        return self.head, jnp.concatenate(parts, axis=1), [jnp.tile(row, (1, self.streams)) for row in rows]


@component
class Heads:
    """Several heads on the same states; the result is a dict with the scores of each, by name."""

    parts: tuple[tuple[str, Any], ...]

    def spec(self, d: int) -> Tree:
        return {name: head.spec(d) for name, head in self.parts}

    def __call__(self, p: Tree, x: Array, ctx: Ctx) -> dict[str, Array]:
        return {name: head(p[name], x, ctx.at(name)) for name, head in self.parts}


Head = (
    LMHead
    | AdaptiveHead
    | MultiTokenHead
    | TransformHead
    | SpanBoundary
    | TokenClassifier
    | SequenceClassifier
    | FirstTokenFeature
    | StreamHead
    | NoHead
    | Heads
)
