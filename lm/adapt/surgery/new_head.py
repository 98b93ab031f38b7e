"""Another head."""

from typing import Any

import jax

from lm.adapt.surgery.surgery import inherited
from lm.core.component import component
from lm.core.errors import UserError
from lm.core.param import Ties, Tree
from lm.model.heads import Head
from lm.model.transformer import Model, with_head


@component
class NewHead:
    """Another head on the same towers: labels for a language model, tokens for a model that gave states alone.

    head: whose parameters are all new;
    ties: (path in the head, path of the tensor that it is), as (("head/w", "body/embed/token"),); those of the head
        before are dropped."""

    head: Any
    ties: Ties = ()

    def __post_init__(self) -> None:
        if not isinstance(self.head, Head):
            raise UserError(f"NewHead.head is a {type(self.head).__name__}, which is no head: give LMHead or another")
        if wrong := [alias for alias, _ in self.ties if not alias.startswith("head/")]:
            raise UserError(f"NewHead.ties ties {wrong[0]!r}: it must begin with 'head/'")

    def model(self, model: Model) -> Model:
        return with_head(model, self.head, self.ties)

    def params(self, old: Model, new: Model, params: Tree, key: jax.Array) -> Tree:
        return inherited(params, new, but="head/")
