"""A run's checkpoints, measured on rows that it trained on and on rows that were held out."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from lm.core.ctx import Ctx
from lm.core.errors import UserError
from lm.core.param import Tree
from lm.data.cache import TokenCache
from lm.inspect.cost import training_flops
from lm.model.transformer import Model, head_ctx
from lm.objectives.causal import NextToken
from lm.runs.checkpoint import open_model
from lm.train.config_file import read_config
from lm.train.setup import Parts, assemble

from .measures import (
    Array,
    Predicted,
    Rate,
    by_duplicates,
    by_frequency,
    by_position,
    continuations,
    exact_match,
    occurrences,
    reproduced,
)
from .noise import gradient_of, measured

MATCHED = (1, 2, 4, 8, 16, 32)  # tokens to be predicted without a fault
KEYS = ("tokens", "targets", "weights")
Batch = dict[str, Array]


@dataclass(frozen=True)
class Asked:
    """rows: of either text, at most; prefixes, continuation: tokens of a window that are given, and that must follow;
    noise: batches of which the gradient noise scale is taken, 0: it is not"""

    rows: int = 256
    prefixes: tuple[int, ...] = (8, 16, 32, 64)
    continuation: int = 16
    noise: int = 0


def measure(run: str | Path, steps: Sequence[int], asked: Asked) -> Iterator[dict[str, Any]]:
    """What each of these checkpoints of a run's folder knows, as JSON has it. Raises `UserError` for a run of another
    objective, or rows too short for what is asked."""
    parts = assemble(read_config(run), sharding=None)
    if type(parts.objective) is not NextToken or not parts.model.causal:
        name = type(parts.objective).__name__
        raise UserError(f"{run} was trained with {name}: prefixes are reproduced by causal models of NextToken only")
    longest, length = max(asked.prefixes) + asked.continuation, parts.config.data.length
    if longest > length:
        raise UserError(f"--prefixes and --continuation ask for {longest} tokens, more than the {length} of a row")
    text, held_out = np.concatenate([_tokens(part.train) for part in parts.data.parts]), _held_out(parts, asked.rows)
    counts = np.bincount(text, minlength=parts.model.vocab)
    predict = jax.jit(lambda params, batch: _predictions(parts.model, params, batch))
    gradient, per_row = gradient_of(parts.model, parts.objective), training_flops(parts.model, length)
    for step in steps:
        params, rows = open_model(run, step).params, sum(parts.batches.rows_by(step))
        read = {"training": _training(parts, step, asked.rows), "held-out": held_out}
        record = {"step": step, "tokens": rows * length, "flops": rows * per_row}
        record |= _record({k: predicted(predict, params, v) for k, v in read.items()}, text, counts, asked)
        if asked.noise:  # of the batches that come next, which are new to the model while text lasts
            noise = measured(gradient, params, [parts.batches.batch(step + k) for k in range(asked.noise)])
            record["noise_scale"] = {k: None if np.isnan(v) else v for k, v in noise._asdict().items()}
        yield record


def _tokens(cache: TokenCache) -> Array:
    return cache.read(0, cache.size)


def _training(parts: Parts, step: int, rows: int) -> list[Batch]:
    """Batches of the first `step` ones, evenly spread, of so many rows together."""
    size = parts.config.data.batch_size
    chosen = np.unique(np.linspace(0, step - 1, -(-rows // size)).astype(int))
    return [parts.batches.batch(int(k)) for k in chosen]


def _held_out(parts: Parts, rows: int) -> list[Batch]:
    size, there = parts.config.data.batch_size, len(parts.held_out)
    return [parts.held_out.batch(int(k)) for k in np.unique(np.linspace(0, there - 1, -(-rows // size)).astype(int))]


def _predictions(model: Model, params: Tree, batch: dict[str, Any]) -> tuple[jax.Array, jax.Array]:
    """(nats of each target, whether it is the likeliest token), [B, S] both."""
    states, _, _ = model.hidden(params, batch, Ctx())
    scores = jax.nn.log_softmax(model.logits(params, states, head_ctx(Ctx(), batch)))
    nats = -jnp.take_along_axis(scores, batch["targets"][..., None], axis=-1)[..., 0]
    return nats, scores.argmax(axis=-1) == batch["targets"]


def predicted(predict: Any, params: Tree, batches: Sequence[Batch]) -> Predicted:
    """What `predict` (as `_predictions`) makes of these batches."""
    tokens, targets, weights = (np.concatenate([batch[key] for batch in batches]) for key in KEYS)
    nats, right = map(np.concatenate, zip(*(predict(params, batch) for batch in batches), strict=True))
    return Predicted(tokens, targets, nats, right, weights > 0)


def _record(of: dict[str, Predicted], text: Array, counts: Array, asked: Asked) -> dict[str, Any]:
    found: dict[str, Any] = {"loss": {name: p.loss for name, p in of.items()}, "continuation": asked.continuation}
    found["memorised"], found["by_duplicates"] = {}, {}
    for name, p in of.items():
        hits = {n: reproduced(p, n, asked.continuation) for n in asked.prefixes}
        found["memorised"][name] = {n: Rate.of(hit)._asdict() for n, (hit, _) in hits.items() if len(hit)}
        windows = [continuations(p, rows, n, asked.continuation) for n, (_, rows) in hits.items()]
        copies = occurrences(text, np.concatenate(windows))
        rates = by_duplicates(np.concatenate([hit for hit, _ in hits.values()]), copies)
        found["by_duplicates"][name] = {n: rate._asdict() for n, rate in rates.items()}
    held_out = of["held-out"]
    found["by_position"] = [None if np.isnan(x) else float(x) for x in by_position(held_out)]
    found["by_frequency"] = {n: {"loss": x, "share": share} for n, (x, share) in by_frequency(held_out, counts).items()}
    found["exact_match"] = exact_match(held_out, MATCHED)
    return found
