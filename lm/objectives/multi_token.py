"""Prediction of the next token and of some behind it (DeepSeek-V3, arXiv 2412.19437, section 2.2)."""

from typing import Any

import jax.numpy as jnp
import numpy as np

from lm.core.component import component
from lm.core.ctx import Ctx
from lm.core.errors import UserError
from lm.core.param import Tree
from lm.kernels.cross_entropy import Terms, chunked_loss
from lm.model.heads import MultiTokenHead
from lm.model.transformer import Batch, Model, rows_of
from lm.objectives.causal import Example, Loss, NextToken, TokenLoss, read_rows
from lm.objectives.router import balance_and_z, load_metrics


@component
class MultiToken:
    """The loss of the next token plus `share` times the mean loss of the depths of a `MultiTokenHead` (lambda in the
    paper: 0.3, later 0.1). Each depth predicts within a document only, and its losses are divided by as many tokens as
    the first one's. What is reported is of the next token."""

    loss: TokenLoss = TokenLoss()
    share: float = 0.3

    def example(self, row: Example, rng: np.random.Generator) -> Example:
        """As `NextToken`'s."""
        return NextToken().example(row, rng)

    def __call__(self, model: Model, params: Tree, batch: Batch, ctx: Ctx, dtype: Any = jnp.float32) -> Loss:
        head = model.head
        if not isinstance(head, MultiTokenHead):
            raise UserError(f"model.head is {type(head).__name__}: this objective needs a MultiTokenHead, or NextToken")
        rows = read_rows(batch)
        x, _, aux = model.hidden(params, rows, ctx, None, dtype)
        p = model.head_params(params)
        inner = ctx.replace(rows=ctx.rows | rows_of(rows) | {"tokens": rows["tokens"]}).at("head")
        plain = Ctx(sharding=ctx.sharding, execution=ctx.execution).at("head")  # as in `TokenLoss`
        terms = Terms(self.loss.z_loss, self.loss.smoothing)
        targets, here = batch["targets"], batch["weights"].astype(jnp.float32)
        totals, figures, weights = [], [], here
        for k, states in enumerate(head.states(p, x, inner)):
            if k:  # one token further, if it and all before it belong to the document
                targets, here = (jnp.pad(a, ((0, 0), (0, 1)))[:, 1:] for a in (targets, here))
                weights = weights * here
            total, each = chunked_loss(
                lambda p, h: head.head(p, h, plain), p["lm"], states, targets, weights, terms, self.loss.chunk
            )
            totals.append(total)
            figures.append(each)
        weights = batch["weights"].astype(jnp.float32)
        balance, router_z = balance_and_z(aux)
        total = totals[0] + self.share * sum(totals[1:]) / head.depth
        total += self.loss.balance * balance + self.loss.router_z * router_z
        nll, hits = ((y * weights).sum() for y in (figures[0].nll, figures[0].hit))
        stats = {"nll": nll, "hits": hits, "tokens": weights.sum(), **load_metrics(aux)}
        if "bytes" in batch:
            stats["bytes"] = batch["bytes"].sum().astype(jnp.float32)
        return Loss(total, weights.sum(), stats, aux)
