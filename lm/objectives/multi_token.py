"""Prediction of the next token and of some after it (DeepSeek-V3, arXiv 2412.19437, section 2.2)."""

from typing import Any

import jax
import jax.numpy as jnp

from lm.core.component import component
from lm.core.ctx import Ctx
from lm.core.param import Tree
from lm.core.rows import Batch
from lm.model.heads import AHEAD
from lm.model.transformer import Model
from lm.objectives.examples.next_token import NextTokens
from lm.objectives.objective import Loss, Needs, Scoring
from lm.objectives.token_loss import TokenLoss


@component
class MultiToken:
    """The loss of the next token plus `share` times the mean loss of the depths of a `MultiTokenHead` (lambda in the
    paper: 0.3, later 0.1). Each depth predicts within a document only, and its losses are divided by as many tokens as
    the first one's. What is reported is of the next token."""

    loss: TokenLoss = TokenLoss()
    share: float = 0.3

    def needs(self) -> Needs:
        return Needs(head=AHEAD)

    def examples(self, tokenizer: Any = None) -> NextTokens:
        return NextTokens()

    def scoring(self, tokenizer: Any) -> Scoring:
        return Scoring(documents=True)

    def __call__(
        self,
        model: Model,
        params: Tree,
        batch: Batch,
        ctx: Ctx,
        dtype: jax.typing.DTypeLike = jnp.float32,
        cache: Tree = None,
    ) -> Loss:
        return self.loss(model, params, batch, ctx, dtype, cache, ahead=self.share)
