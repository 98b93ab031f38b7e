"""What an objective is. Its two sides run in different processes:

- examples: numpy, on the host, where a data worker may have no JAX (`lm.objectives.examples`);
- the loss: traced, within the step.

An objective is a component, so that its knobs are stored with a run. What it asks of a model it declares, and
`check_needs` compares the two before anything compiles."""

from typing import TYPE_CHECKING, NamedTuple, Protocol

import jax
import jax.numpy as jnp

from lm.core.component import known
from lm.core.ctx import Ctx
from lm.core.errors import UserError
from lm.core.metrics import Metrics
from lm.core.param import Tree
from lm.core.rows import Batch, reads
from lm.model.heads import TOKENS
from lm.model.transformer import Model
from lm.objectives.examples.builder import ExampleBuilder

if TYPE_CHECKING:
    from lm.text.tokenizers import Tokenizer

Array = jax.Array


class Needs(NamedTuple):
    """What an objective asks of a model."""

    head: str = TOKENS  # what the model's head must predict: `Head.predicts`
    rows: tuple[str, ...] = ()  # keys of its examples that some part of the model must read, besides those all do
    carries: bool = False  # it takes a `cache`: rows may go on from those of the batch before


class Loss(NamedTuple):
    """A loss as a sum and its weight, so that parts of a batch add up to the whole; divided once, at the end."""

    total: Array  # what is minimised, summed over the predictions
    weight: Array  # how many those are
    metrics: Metrics  # what to report: always `loss`, a mean in nats, and `tokens`, a sum; else what it likes
    aux: Tree  # what the model recorded, each leaf [layers, B, ...]
    cache: Tree = None  # what the model remembers for the next batch, where it was given such


class Objective(Protocol):
    """A component of two sides."""

    def needs(self) -> Needs:
        """What it asks of a model, and whether it carries a cache on, by its knobs."""

    def examples(self, tokenizer: "Tokenizer | None") -> ExampleBuilder:
        """The builder of its examples for data of that tokenizer, None where only shapes are wanted.

        Raises `UserError` where the tokenizer lacks what they need: sentinels, a mask."""

    def __call__(
        self,
        model: Model,
        params: Tree,
        batch: Batch,
        ctx: Ctx,
        dtype: jax.typing.DTypeLike = jnp.float32,
        cache: Tree = None,
    ) -> Loss:
        """The loss of a batch, leaves [B, ...], of any number of rows. `dtype` is that of the states; losses are
        float32. With a `cache`, leaves [B, ...], rows go on from it but where `reset` is set."""


def check_needs(objective: Objective, model: Model) -> None:
    """Raise `UserError` unless the model offers what the objective asks for."""
    asked, name, head = objective.needs(), type(objective).__name__, model.head
    if head.predicts != asked.head:
        raise UserError(
            f"model.head is {type(head).__name__}, which predicts {head.predicts}; objective {name} asks for "
            f"{asked.head}: take {_classes('predicts', asked.head)}, or another objective"
        )
    for key in asked.rows:
        if key not in reads(model):
            raise UserError(
                f"no part of this model reads the rows {key!r} of objective {name}: take a model with "
                f"{_classes('reads', (key,))}, or another objective"
            )


def _classes(attribute: str, wanted: object) -> str:
    """The components of which that attribute is `wanted`, as an error names them."""
    return " or ".join(sorted(cls.__name__ for cls in known() if vars(cls).get(attribute) == wanted))
