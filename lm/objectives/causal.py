"""Next-token prediction, and what every objective that predicts tokens shares."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from lm.core.component import component
from lm.core.ctx import Ctx
from lm.core.errors import UserError
from lm.core.param import Tree
from lm.kernels.cross_entropy import Terms, chunked_loss
from lm.model.heads import LMHead, StreamHead, TransformHead
from lm.model.special.adaptive import AdaptiveHead
from lm.model.transformer import Batch, Model
from lm.objectives.router import balance_and_z, load_metrics

Array = jax.Array
Example = dict[str, np.ndarray]


class Loss(NamedTuple):
    """A loss as a sum and its weight, so that parts of a batch add up to the whole; divided once, at the end."""

    total: Array  # what is minimised, summed over tokens
    weight: Array  # number of predicted tokens
    stats: dict[str, Array]  # sums to report: nll, hits, tokens, bytes ...
    aux: Tree  # what the model recorded, each leaf [layers, B, ...]
    cache: Tree = None  # what the model remembers for the next batch, where it was given such


def read_rows(batch: Batch) -> Batch:
    """What a model reads of a batch: not what it is to predict, how many bytes that is, or which rows begin anew."""
    return {k: v for k, v in batch.items() if k not in ("targets", "weights", "bytes", "fresh")}


@component
class TokenLoss:
    """Cross-entropy of `batch["targets"]` [B, S], or of the last tokens where they are fewer, under
    `batch["weights"]`, plus the usual auxiliary terms.

    z_loss: weight of squared logsumexp (PaLM); smoothing: share of the target's probability that goes to all tokens
    evenly (Szegedy et al. 2016, arXiv 1512.00567); balance, router_z: weights of the routers' losses (Switch, ST-MoE);
    chunk: positions whose logits exist at once. Where streams of predictors (`StreamHead`) stand beside the text all of
    them learn; what is reported is of those of the next token."""

    z_loss: float = 0.0
    smoothing: float = 0.0
    balance: float = 0.01
    router_z: float = 0.0
    chunk: int = 128

    def __call__(
        self, model: Model, params: Tree, batch: Batch, ctx: Ctx, dtype: jax.typing.DTypeLike, cache: Tree = None
    ) -> Loss:
        """With `cache` rows go on from those of the batch before, but for those that are `fresh`, which forget."""
        rows = read_rows(batch)
        head = model.head
        if not isinstance(head, (LMHead, AdaptiveHead, TransformHead, StreamHead)):
            raise UserError(f"model.head is {type(head).__name__}: this objective needs logits over a vocabulary")
        if cache is not None:
            cache = emptied(cache, batch["fresh"] > 0)
        x, cache, aux = model.hidden(params, rows, ctx, cache, dtype)
        targets, weights, length = batch["targets"], batch["weights"].astype(jnp.float32), x.shape[1]
        if isinstance(head, StreamHead):
            head, x, (targets, weights) = head.unfolded(x, targets, weights)
        else:  # where only some tokens have targets, those are the last
            x = x[:, length - targets.shape[1] :]
        # Without the step's key: a head draws nothing, and what the kernel differentiates must not hold traced values.
        head_ctx = Ctx(sharding=ctx.sharding, execution=ctx.execution).at("head")
        total, each = chunked_loss(
            lambda p, h: head(p, h, head_ctx),
            model.head_params(params),
            x,
            targets,
            weights,
            Terms(self.z_loss, self.smoothing),
            self.chunk,
        )
        nll, hits, first = ((y * weights)[:, :length].sum() for y in (each.nll, each.hit, jnp.ones_like(weights)))
        balance, router_z = balance_and_z(aux)
        total += self.balance * balance + self.router_z * router_z
        stats = {"nll": nll, "hits": hits, "tokens": first, **load_metrics(aux)}
        if "bytes" in batch:
            stats["bytes"] = batch["bytes"].sum().astype(jnp.float32)
        return Loss(total, weights.sum(), stats, aux, cache)


@component
class NextToken:
    """Predict each token from those before it (GPT). With packed documents, a document's first token is not
    predicted."""

    loss: TokenLoss = TokenLoss()

    def example(self, row: Example, rng: np.random.Generator) -> Example:
        """A packed row {tokens, segments [length + 1]}, with positions or without -> tokens, targets, weights,
        segments, positions [length]; of one with bytes also those of text that each target covers."""
        tokens, segments = row["tokens"], row["segments"]
        same = (segments[1:] == segments[:-1]) & (segments[1:] > 0)
        return {
            "tokens": tokens[:-1],
            "targets": tokens[1:],
            "weights": same.astype(np.float32),
            "segments": segments[:-1],
            "positions": row["positions"][:-1] if "positions" in row else positions_in(segments[:-1]),
            **({"bytes": row["bytes"][1:]} if "bytes" in row else {}),
        }

    def __call__(
        self, model: Model, params: Tree, batch: Batch, ctx: Ctx, dtype: Any = jnp.float32, cache: Tree = None
    ) -> Loss:
        return self.loss(model, params, batch, ctx, dtype, cache)


def emptied(cache: Tree, rows: Array) -> Tree:
    """`cache`, whose leaves are [B, ...], as they were at first where `rows`, bool [B], says so."""
    return jax.tree.map(lambda x: jnp.where(rows.reshape(-1, *(1,) * (x.ndim - 1)), 0, x).astype(x.dtype), cache)


def positions_in(segments: np.ndarray) -> np.ndarray:
    """Each token's index within its segment, int32."""
    index = np.arange(len(segments), dtype=np.int32)
    starts = np.concatenate([[True], segments[1:] != segments[:-1]])
    return index - np.maximum.accumulate(np.where(starts, index, 0)).astype(np.int32)
