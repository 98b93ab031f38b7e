"""Several objectives in one run."""

from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np

from lm.core.component import component, in_range
from lm.core.ctx import Ctx
from lm.core.errors import UserError, nearest
from lm.core.param import Tree
from lm.core.ranges import NOT_NEGATIVE
from lm.core.rows import Batch
from lm.model.transformer import Model
from lm.objectives.by_group import losses_by
from lm.objectives.examples.builder import Covered
from lm.objectives.examples.mixed import MixedExamples
from lm.objectives.objective import Loss, Needs, Objective, Scoring, copies_of
from lm.objectives.token_loss import TokenLoss, TokenObjective

if TYPE_CHECKING:
    from lm.text.tokenizers import Tokenizer

# Rows of a batch whose zeros say nothing of a token, so that a part may do without them.
NEUTRAL = ("prefix", "types", "tasks", "global", "span", "text_position", "encoder/tokens")


@component
class Mixed:
    """Each row under one of several objectives that share their loss, and so the program of a step: causal, prefix,
    span and fill-in-the-middle on a decoder with the `Prefix` mask; spans and continuations on an encoder-decoder. The
    proportions are exact, and the loss of each part is reported as `loss/NAME`.

    parts: (rate, name, objective); rates are relative. A source can name the part that its rows go to, the fourth item
        of its entry in data.mixture; one that only such sources want has rate 0"""

    parts: tuple[tuple[float, str, Any], ...]

    def __post_init__(self) -> None:
        for rate, name, objective in self.parts:
            in_range(rate, NOT_NEGATIVE, f"rate of the part {name!r} of a mixture")
            if not isinstance(getattr(objective, "loss", None), TokenLoss) or not isinstance(objective, TokenObjective):
                kind = type(objective).__name__
                raise UserError(
                    f"part {name!r} of a mixture is {kind}: only objectives whose loss is a TokenLoss can be mixed, as "
                    "NextToken"
                )
        if not any(rate for rate, _, _ in self.parts):
            raise UserError("a mixture of objectives has no part with a rate above 0: give one or more")
        if len(set(self.names)) < len(self.names) or not all(self.names):
            raise UserError(f"parts of a mixture are named {', '.join(map(repr, self.names))}: give each its own name")
        first = self.parts[0][2]
        for _, name, objective in self.parts:
            if objective.loss != first.loss:
                raise UserError(
                    f"parts {self.names[0]!r} and {name!r} of a mixture have different knobs of their loss, and rows "
                    "of both share a step: make them equal"
                )
        self._check_share()

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(name for _, name, _ in self.parts)

    @property
    def objectives(self) -> tuple[Objective, ...]:
        return tuple(objective for _, _, objective in self.parts)

    def _check_share(self) -> None:
        """Raise `UserError` for parts that cannot share a model."""
        needs = dict(zip(self.names, (objective.needs() for objective in self.objectives), strict=True))
        first = self.names[0]
        copies_of(needs)
        for name, asked in needs.items():
            if asked.head != needs[first].head or asked.both_sides != needs[first].both_sides:
                raise UserError(
                    f"parts {first!r} and {name!r} of a mixture need models whose heads or masks differ: mix "
                    "objectives of one kind, or train one after the other (config.stages)"
                )
            for key in asked.rows:
                if key not in NEUTRAL and (without := [n for n, other in needs.items() if key not in other.rows]):
                    raise UserError(
                        f"part {name!r} of a mixture needs the rows {key!r}, without which tokens of {without[0]!r} "
                        "would see what they are to predict: train one after the other (config.stages)"
                    )

    def needs(self) -> Needs:
        asked = [objective.needs() for objective in self.objectives]
        sides = [n.sides for n in asked if n.sides is not None]
        return Needs(
            head=asked[0].head,
            rows=tuple(dict.fromkeys(row for n in asked for row in n.rows)),
            carries=all(n.carries for n in asked),
            both_sides=asked[0].both_sides,
            positions=max(n.positions for n in asked),
            sides=(max(i for i, _ in sides), max(t for _, t in sides)) if sides else None,
            copies=asked[0].copies,
            channels=tuple(dict.fromkeys(channel for n in asked for channel in n.channels)),
        )

    def examples(self, tokenizer: "Tokenizer | None" = None) -> MixedExamples:
        sizes = np.zeros(1, np.int32) if tokenizer is None else np.append(tokenizer.token_bytes(), 0)
        return MixedExamples(
            tuple(Covered(objective.examples(tokenizer), sizes) for objective in self.objectives),
            tuple(rate for rate, _, _ in self.parts),
            tuple(objective.needs().channels for objective in self.objectives),
        )

    def number_of(self, name: str, source: str) -> int:
        """The number of the part that a source names; -1 for "", which leaves it to the rates. Raises `UserError`."""
        if name and name not in self.names:
            raise UserError(
                f"data.mixture: {source} names the objective {name!r}, which is no part of config.objective"
                f"{nearest(name, self.names)}"
            )
        return self.names.index(name) if name else -1

    def scoring(self, tokenizer: "Tokenizer") -> Scoring:
        """As the first part that scores documents, if one does."""
        ways = [objective.scoring(tokenizer) for objective in self.objectives]
        return next((way for way in ways if way.documents), ways[0])

    def __call__(
        self,
        model: Model,
        params: Tree,
        batch: Batch,
        ctx: Ctx,
        dtype: jax.typing.DTypeLike = jnp.float32,
        cache: Tree = None,
    ) -> Loss:
        loss = self.parts[0][2](model, params, batch, ctx, dtype, cache)
        return loss._replace(metrics=loss.metrics | losses_by(loss.rows, batch["group"], self.names))
