"""Several models that each learn by an objective of their own from the same rows (ERNIE 3.0, Sun et al. 2021, arXiv
2107.02137: one part fills in hidden tokens, another writes on, over the same wide layers)."""

from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp

from lm.core.component import component, in_range
from lm.core.ctx import Ctx
from lm.core.errors import UserError
from lm.core.param import Tree
from lm.core.ranges import NOT_NEGATIVE
from lm.core.rows import Batch
from lm.model.heads import HeadLoss
from lm.model.transformer import Group, Model
from lm.objectives.examples.together import TogetherExamples
from lm.objectives.joint import added_losses
from lm.objectives.objective import Loss, Needs, Scoring, copies_of

if TYPE_CHECKING:
    from lm.text.tokenizers import Tokenizer

OF_ALL = ("row", "reset", "source")  # rows that belong to every part's examples


@component
class Together:
    """The sum of the mean losses of the models of a `Group`, each under an objective of its own, times its weight. Each
    objective makes its own example of every row, so that all models read the same text. No memory is passed on.

    Reported are the weighted sum as `loss`, the number of all predictions as `tokens`, and each objective's metrics
    behind the name of its model.

    parts: (name of the model, weight, objective), the group's last model last"""

    parts: tuple[tuple[str, float, Any], ...]

    def __post_init__(self) -> None:
        names = [name for name, _, _ in self.parts]
        if not names or len(set(names)) < len(names):
            raise UserError(f"parts of Together are named {', '.join(names) or 'not at all'}: name each model once")
        for name, weight, _ in self.parts:
            in_range(weight, NOT_NEGATIVE, f"weight of {name!r}")
        copies_of({name: objective.needs() for name, _, objective in self.parts})

    def needs(self) -> Needs:
        asked = [(name, objective.needs()) for name, _, objective in self.parts]
        return Needs(
            parts=tuple(asked),
            copies=asked[0][1].copies,
            partners=max(own.partners for _, own in asked),
            alone=any(own.alone for _, own in asked),
            classes=next((own.classes for _, own in asked if own.classes is not None), None),
            channels=tuple(dict.fromkeys(channel for _, own in asked for channel in own.channels)),
        )

    def examples(self, tokenizer: "Tokenizer | None" = None) -> TogetherExamples:
        return TogetherExamples(tuple((name, objective.examples(tokenizer)) for name, _, objective in self.parts))

    def scoring(self, tokenizer: "Tokenizer") -> Scoring:
        return Scoring()

    def __call__(
        self,
        model: Model,
        params: Tree,
        batch: Batch,
        ctx: Ctx,
        dtype: jax.typing.DTypeLike = jnp.float32,
        cache: Tree = None,
    ) -> Loss:
        assert isinstance(model, Group)  # `check_needs` has told the user
        models, own, aux = dict(model.parts), model.resolve(params), {}
        losses: dict[str, HeadLoss] = {}
        for name, _, objective in self.parts:
            loss = objective(models[name], own[name], self._batch(name, batch), ctx.at(name), dtype)
            losses[name], aux[name] = HeadLoss(loss.total, loss.weight, loss.metrics), loss.aux
        total, weight, metrics, *_ = added_losses(losses, {name: weight for name, weight, _ in self.parts}, batch)
        return Loss(total, weight, metrics, aux)

    def _batch(self, name: str, batch: Batch) -> Batch:
        """The batch as one of the objectives made it."""
        named = {key.removeprefix(f"{name}/"): value for key, value in batch.items() if key.startswith(f"{name}/")}
        if name == self.parts[-1][0]:
            others = tuple(f"{part}/" for part, _, _ in self.parts)
            return {key: value for key, value in batch.items() if not key.startswith(others)} | named
        return {key: batch[key] for key in OF_ALL if key in batch} | named
