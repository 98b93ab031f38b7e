"""Metrics are sums: they add up over microbatches, devices and batches, and are divided once, when reported. Trainer,
evaluator and TensorBoard write whatever metrics an objective returns, without knowing their names.

No JAX here: values may be traced arrays, arrays or plain numbers.
"""

import abc
import math
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple, TypeVar


class Mean(NamedTuple):
    """A weighted mean as its two sums. (nll in nats, tokens) is a loss per token."""

    total: Any
    weight: Any

    @property
    def value(self) -> float:
        """As reported; undefined where the weight is 0."""
        return float(self.total) / float(self.weight)


class Bits(Mean):
    """A mean of nats that is reported in bits."""

    __slots__ = ()

    @property
    def value(self) -> float:
        return float(self.total) / math.log(2) / float(self.weight)


class Sum(NamedTuple):
    """A count: tokens, bytes."""

    total: Any

    @property
    def value(self) -> float:
        return float(self.total)


Metrics = dict[str, Mean | Sum]
Metric = TypeVar("Metric", bound=Mean | Sum)


def added(parts: Iterable[Mapping[str, Metric]]) -> dict[str, Metric]:
    """The metrics of several parts as of one. A part that lacks a metric adds nothing to it."""
    whole: dict[str, Metric] = {}
    for part in parts:
        for name, metric in part.items():
            sums = zip(whole[name], metric, strict=True) if name in whole else None
            whole[name] = metric if sums is None else type(metric)(*(a + b for a, b in sums))
    return whole


def values(metrics: Mapping[str, Any]) -> dict[str, float]:
    """Metrics as reported: means divided, sums and plain scalars as they are. Means of weight 0 are left out."""
    reported = {name: m for name, m in metrics.items() if not isinstance(m, Mean) or float(m.weight)}
    return {name: m.value if isinstance(m, Mean | Sum) else float(m) for name, m in reported.items()}


class AuxRecord(abc.ABC):
    """What a layer records in `aux` for the loss: a registered dataclass of arrays with leading axes [layers, B].

    Objectives collect these records by type, wherever in the model they come from, and add their losses, each times the
    weight configured for its name. They know neither the layer nor what the names mean."""

    @abc.abstractmethod
    def losses(self) -> dict[str, Mean]:
        """Auxiliary losses by name. The total sums over layers and rows, each row times its tokens; the weight is the
        number of layers, over which the losses of all records are averaged."""

    @abc.abstractmethod
    def metrics(self) -> Metrics:
        """Metrics to report, by name."""


def aux_losses(aux: Any, weights: Iterable[tuple[str, float]]) -> Any:
    """Sum of the recorded auxiliary losses, times the weights of their names; names without a weight do not count."""
    losses = added(record.losses() for record in _records(aux))
    terms = [weight * (losses[name].total / losses[name].weight) for name, weight in weights if name in losses]
    return sum(terms[1:], terms[0]) if terms else 0.0


def aux_metrics(aux: Any) -> Metrics:
    """Metrics of all records."""
    return added(record.metrics() for record in _records(aux))


def _records(aux: Any) -> list[AuxRecord]:
    """All in an aux tree, dicts within dicts, in order."""
    if isinstance(aux, AuxRecord):
        return [aux]
    return [record for value in aux.values() for record in _records(value)] if isinstance(aux, dict) else []
