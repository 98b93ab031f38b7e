"""The record of a run that a sweep made: what its keys mean, beside those that every record has
(`scaling.records.RECORD`)."""

import json
from datetime import UTC, datetime
from typing import Any

import jax
from ml_collections.config_dict import ConfigDict

from lm.core.param import count
from lm.data.open import Data
from lm.inspect.cost import CONVENTION
from lm.runs.config_json import plain

from .training import Outcome
from .trunks import Point, Trunk

Record = dict[str, Any]

SWEPT = {
    # which run
    "cell": "names it: a digest of all that a plan says of it",
    "budget": "FLOPs that it was made for, or null",
    "seed": "of initial values and data order",
    "time": "when it ended, UTC",
    # model
    "family": "of lm.zoo, or the component's type",
    "d_model": "width",
    "layers": "number of layers",
    "heads": "of attention, in a layer",
    "total_params": "parameters, experts that a token does not meet included",
    "model": "config.model as JSON text, from which it can be built again",
    # data
    "data": "digest of the training tokens",
    "validation": "digests of the held-out tokens, joined by commas",
    "tokenizer": "as config.data.tokenizer names it",
    "corpus_tokens": "tokens of the training split",
    "unique_tokens": "of those, how many were seen",
    "epochs": "tokens / corpus_tokens",
    "length": "tokens of a row",
    # objective and optimizer
    "objective": "type of the component",
    "optimizer": "type of the component",
    "learning_rate": "the peak",
    "batch_size": "rows of a step",
    "batch_tokens": "tokens of a step",
    "steps": "of the run, its cool-down included",
    "warmup": "steps",
    "warmup_tokens": "the same in tokens",
    "cooldown_fraction": "share of the steps in which the learning rate falls",
    "b2": "of Adam and its like, or null",
    "weight_decay": "times the learning rate",
    # results
    "loss_se": "standard error of loss over held-out batches, seeds not counted, or null",
    "accuracy": "share of held-out tokens that are the likeliest, or null",
    "evaluation_tokens": "held-out tokens that loss is taken on",
    "diverged": "true: the loss was not finite",
    "failure": "why there is no result, or null: what the last of several attempts said",
    "seconds": "of training; the trunk's share included",
    "device": "kind of device, and how many, or null",
}


def record_of(outcome: Outcome, data: Data) -> Record:
    """Of a run that ended, well or diverged."""
    return _described(outcome.trunk, outcome.point, data) | {
        "loss": outcome.judged.loss,
        "loss_se": outcome.judged.loss_se,
        "accuracy": outcome.judged.accuracy,
        "evaluation_tokens": outcome.judged.tokens,
        "diverged": outcome.judged.loss is None,
        "failure": None,
        "seconds": round(outcome.seconds, 2),
        "device": f"{jax.devices()[0].device_kind} x {len(jax.devices())}",
    }


def failed(trunk: Trunk, point: Point, data: Data, reason: str) -> Record:
    """Of a run that ended in no way of its own."""
    return _described(trunk, point, data) | {
        "loss": None,
        "loss_se": None,
        "accuracy": None,
        "evaluation_tokens": 0,
        "diverged": False,
        "failure": reason,
        "seconds": 0.0,
        "device": None,
    }


def line_of(record: Record) -> str:
    """A record as people read it."""
    where = (
        f"d{record['d_model']} x {record['layers']}, rate {record['learning_rate']:.3g}, {record['batch_size']} rows, "
        f"seed {record['seed']}, {record['budget'] or record['flops']:.4g} FLOPs"
    )
    if record["failure"] is not None:
        return f"{where}: failed: {record['failure']}"
    if record["loss"] is None:
        return f"{where}: diverged, recorded without loss; lower config.sweep.lr"
    error = "" if record["loss_se"] is None else f" ± {record['loss_se']:.4f}"
    return (
        f"{where}: loss {record['loss']:.4f}{error} {record['loss_unit']}, "
        f"{record['tokens']:,} tokens ({record['epochs']:.2f} epochs), {record['seconds']:.0f} s"
    )


def _described(trunk: Trunk, point: Point, data: Data) -> Record:
    c: ConfigDict = trunk.config
    model = plain(c.model)
    return {
        "params": trunk.size.params,
        "tokens": point.tokens,
        "flops": point.flops,
        "flops_convention": CONVENTION,
        "loss": None,
        "loss_unit": "nats/byte",
        "cell": point.cell.id,
        "budget": point.cell.budget,
        "seed": c.seed,
        "time": datetime.now(UTC).isoformat(timespec="seconds"),
        "family": model.get("family", model.get("type")),
        "d_model": c.model.d_model,
        "layers": c.model.layers,
        "heads": c.model.heads,
        "total_params": count(trunk.size.model.spec()),
        "model": json.dumps(model),
        "data": data.digest,
        "validation": ",".join(cache.digest for cache in data.validation),
        "tokenizer": c.data.tokenizer or "byte",
        "corpus_tokens": data.tokens,
        "unique_tokens": min(point.tokens, data.tokens),
        "epochs": round(point.epochs, 4),
        "length": c.data.length,
        "objective": c.objective.type,
        "optimizer": c.optimizer.type,
        "learning_rate": c.optimizer.learning_rate,
        "batch_size": c.data.batch_size,
        "batch_tokens": point.tokens // point.steps,
        "steps": point.steps,
        "warmup": c.schedule.warmup,
        "warmup_tokens": point.cell.warmup,
        "cooldown_fraction": c.schedule.cooldown_fraction,
        "b2": point.cell.b2,
        "weight_decay": c.optimizer.weight_decay,
    }
