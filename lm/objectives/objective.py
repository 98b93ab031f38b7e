"""The protocol of objectives. An objective has two sides, which run in different processes:

- examples: numpy, in data workers on the host (`lm.objectives.examples`);
- the loss: traced, within the step.

It is a component, so that its knobs are stored with a run. It declares what it needs of a model, and `check_needs`
compares the two before anything compiles."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, NamedTuple, Protocol

import jax
import jax.numpy as jnp
import numpy as np

from lm.core.component import known
from lm.core.ctx import Ctx
from lm.core.errors import UserError
from lm.core.metrics import Mean, Metrics
from lm.core.param import Tree
from lm.core.rows import Batch, reads
from lm.data.cache import TokenCache
from lm.data.channels import CHANNELS, MADE_BY
from lm.model.heads import AHEAD, ROW_LABELS, TOKEN_LABELS, TOKENS, Heads
from lm.model.transformer import Group, Model
from lm.objectives.examples.builder import ExampleBuilder

if TYPE_CHECKING:
    from lm.text.tokenizers import Tokenizer

Array = jax.Array


class Needs(NamedTuple):
    """What an objective needs of a model and of the data."""

    head: str = TOKENS  # what the head must predict (`Head.predicts`)
    heads: tuple[tuple[str, str], ...] = ()  # or, of a model with several, (name, what that one must predict)
    parts: tuple[tuple[str, "Needs"], ...] = ()  # or, of a `Group`, (name, what it needs of the part of that name)
    rows: tuple[str, ...] = ()  # batch keys that some part of the model must read (`lm.core.rows.reads`)
    carries: bool = False  # it passes a `cache` on: rows may continue those of the previous batch
    both_sides: bool = False  # tokens must see those that follow them
    positions: int = 0  # how many tokens its examples have, where these are longer than rows of text
    sides: tuple[int, int] | None = None  # of an encoder-decoder: tokens of inputs and targets that a row has room for
    classes: int | None = None  # of labels: as many scores the head must give, two for one; None: any number
    alone: bool = False  # a row must hold one record (`config.data.packing=one`)
    copies: int = 0  # epochs after which its examples repeat (`lm.data.batches.Batches.copies`); 0: never
    partners: int = 0  # other rows that its examples read beside each (`lm.data.partners`)
    channels: tuple[str, ...] = ()  # what its examples read of rows besides tokens (`lm.data.channels`)


class Scoring(NamedTuple):
    """How a model that was trained so scores text (`lm.evaluate`)."""

    documents: bool = False  # each document by itself; False: only rows that `examples` makes
    mask: int | None = None  # the token that hides what is scored, where tokens see both sides; None: the vocabulary's


class Loss(NamedTuple):
    """A loss as a sum and its weight, so that parts of a batch add up to the whole; divided once, at the end."""

    total: Array  # minimised, once divided by weight; a sum over predictions
    weight: Array  # number of predictions
    metrics: Metrics  # to report: always `loss` (Mean, nats) and `tokens` (Sum), plus any others
    aux: Tree  # what the model recorded, leaves [layers, B, ...]
    cache: Tree = None  # the model's memory for the next batch, if one was passed in
    rows: Mean | None = None  # what the reported loss is of each row [B], where the head tells them apart


class Objective(Protocol):
    """A component of two sides."""

    def needs(self) -> Needs:
        """What it needs of a model; may depend on its knobs."""

    def examples(self, tokenizer: "Tokenizer | None") -> ExampleBuilder:
        """The builder of its examples, for text of that tokenizer; None: only their shapes matter.

        Raises `UserError` if the tokenizer lacks what they need, such as sentinels or a mask."""

    def scoring(self, tokenizer: "Tokenizer") -> Scoring:
        """How its models score text of that tokenizer. Raises `UserError` as `examples` does."""

    def __call__(
        self,
        model: Model,
        params: Tree,
        batch: Batch,
        ctx: Ctx,
        dtype: jax.typing.DTypeLike = jnp.float32,
        cache: Tree = None,
    ) -> Loss:
        """The loss of a batch (leaves [B, ...], any B). `dtype` is that of the states; losses are float32. With a
        `cache` (leaves [B, ...]) rows continue from it, except where the batch says `reset`."""


def unit_of(objective: Objective) -> str:
    """Of its loss, as a person reads it; "" where that is of labels or values, or a sum of several."""
    asked = objective.needs()
    return "nats per token" if asked.head in (TOKENS, AHEAD) and not (asked.heads or asked.parts) else ""


def check_needs(objective: Objective, model: Model) -> None:
    """Raise `UserError` unless the model offers what the objective asks for."""
    name, asked = type(objective).__name__, objective.needs()
    head = getattr(getattr(objective, "loss", None), "head", None)  # of several: `lm.objectives.joint.OfHead`
    if head is not None and not asked.heads:
        asked = asked._replace(heads=((head, asked.head),))
    if not asked.parts and not isinstance(model, Group):
        return _check(name, asked, model)
    have = "is one" if not isinstance(model, Group) else f"has the parts {', '.join(part for part, _ in model.parts)}"
    if not asked.parts:
        raise UserError(f"objective {name} trains one model, but this {have}: take an objective of several models")
    there = dict(model.parts) if isinstance(model, Group) else {}
    if not dict(asked.parts).keys() <= there.keys():
        names = ", ".join(part for part, _ in asked.parts)
        raise UserError(f"objective {name} trains the models {names}, but this {have}: take a Group of these parts")
    for part, needs in asked.parts:
        _check(f"{name} (model {part!r})", needs, there[part])


def _check(name: str, asked: Needs, model: Model) -> None:
    """Raise `UserError` unless one model offers what the objective of that name asks of it."""
    head = model.head
    wanted = dict(asked.heads) or {"": asked.head}
    there = dict(head.parts) if asked.heads and isinstance(head, Heads) else {"": head}
    for part, predicts in wanted.items():
        if part not in there:
            have = f"the heads {', '.join(there)}" if isinstance(head, Heads) else f"one head, {type(head).__name__}"
            raise UserError(
                f"objective {name} trains the heads {', '.join(wanted)}, but the model has {have}: give it heads of "
                "these names, or take another objective"
            )
        if there[part].predicts != predicts:
            where = f"model.head {part!r}" if part else "model.head"
            raise UserError(
                f"{where} is {type(there[part]).__name__}, which predicts {there[part].predicts}; objective {name} "
                f"asks for {predicts}: take {_classes('predicts', predicts)}, or another objective"
            )
    labels = next((there[part] for part, predicts in wanted.items() if predicts in (ROW_LABELS, TOKEN_LABELS)), head)
    outputs = getattr(getattr(labels, "scores", labels), "outputs", None)
    if asked.classes is not None and outputs not in (asked.classes, 1 if asked.classes == 2 else asked.classes):
        raise UserError(
            f"objective {name} has {asked.classes} classes, and model.head {outputs} outputs: make them equal"
        )
    for key in asked.rows:
        if key not in reads(model):
            raise UserError(
                f"no part of this model reads the rows {key!r} of objective {name}: take a model with "
                f"{_classes('reads', (key,))}, or another objective"
            )
    if model.max_length is not None and asked.positions > model.max_length:
        raise UserError(
            f"objective {name} makes examples of {asked.positions} tokens, but the model has {model.max_length} "
            "positions: make them shorter, and with them config.data.length, or raise config.model.context"
        )
    if asked.both_sides and model.causal:
        raise UserError(
            f"objective {name} predicts tokens from both sides, but no token of this model sees those that follow it: "
            "take a model with bidirectional attention, such as a masked language model, or another objective"
        )


def copies_of(parts: Mapping[str, Needs]) -> int:
    """The `copies` that several objectives share in one run, by their names. Raises `UserError` if they differ."""
    (first, asked), *others = parts.items()
    for name, other in others:
        if other.copies != asked.copies:
            raise UserError(
                f"{first!r} repeats its examples after {asked.copies} epochs (0: never), and {name!r}, which reads the "
                f"same rows, after {other.copies}: make their `copies` equal"
            )
    return asked.copies


def check_channels(objective: Objective, name: str, cache: TokenCache) -> None:
    """Raise `UserError` unless the source of that name has the channels that the objective asks for."""
    for channel in objective.needs().channels:
        if channel not in cache.channels:
            raise UserError(
                f"objective {type(objective).__name__} reads the channel {channel!r} ({CHANNELS[channel]}), which "
                f"{name or 'the data'} does not have: set {MADE_BY[channel]}, or take another objective"
            )
    if (classes := objective.needs().classes) is not None and "label" in cache.channels:
        highest = max((float(shard.max()) for shard in cache.channels["label"] if len(shard)), default=0.0)
        if cache.channel_type("label") != np.int32 or highest >= classes:
            raise UserError(
                f"{name or 'the data'} has the label {highest:g}, and objective {type(objective).__name__} the classes "
                f"0 to {classes - 1}: give the head a row for each of them (outputs), and set config.objective.classes"
            )


def check_packing(objective: Objective, packing: str) -> None:
    """Raise `UserError` unless rows are packed as the objective asks for."""
    if objective.needs().alone and packing != "one":
        raise UserError(
            f"objective {type(objective).__name__} labels whole rows, of one record each: set config.data.packing=one, "
            f"not {packing!r}"
        )


def _classes(attribute: str, wanted: object) -> str:
    """The components of which that attribute is `wanted`, as an error names them."""
    return " or ".join(sorted(cls.__name__ for cls in known() if vars(cls).get(attribute) == wanted))
