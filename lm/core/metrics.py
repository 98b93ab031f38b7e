"""Metrics are sums: they add up over microbatches, devices and batches, and are divided once, when reported. Trainer,
evaluator and TensorBoard write whatever metrics an objective returns, without knowing their names.

No JAX here: values may be traced arrays, arrays or plain numbers.
"""

import abc
import itertools
import math
from collections.abc import Hashable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple, TypeVar

import numpy as np


class Mean(NamedTuple):
    """A weighted mean as its two sums. (nll in nats, tokens) is a loss per token."""

    total: Any
    weight: Any

    @property
    def value(self) -> float:
        """As reported; undefined where the weight is 0."""
        return float(self.total) / float(self.weight)


class Each(NamedTuple):
    """Weighted means of several things, as of the layers of a model: totals and weights [...], reported as lists."""

    total: Any
    weight: Any

    @property
    def value(self) -> list:
        with np.errstate(invalid="ignore"):
            return (np.asarray(self.total, np.float64) / np.asarray(self.weight, np.float64)).tolist()


class Entropy(NamedTuple):
    """The entropies, in nats, of distributions [..., n] that are given as sums of probabilities, as lists."""

    total: Any

    @property
    def value(self) -> list:
        sums = np.asarray(self.total, np.float64)
        with np.errstate(invalid="ignore", divide="ignore"):
            p = sums / sums.sum(-1, keepdims=True)
            return (-np.where(p == 0, 0.0, p * np.log(p)).sum(-1)).tolist()


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


class F1(NamedTuple):
    """2 hits / (labelled + predicted), the harmonic mean of precision and recall: that of one class from three numbers,
    of all classes together ("micro") from their sums, or the mean over classes ("macro") from [classes]. Classes that
    are neither labelled nor predicted anywhere do not count."""

    hits: Any  # predicted rightly
    labelled: Any  # of the class, by the labels
    predicted: Any  # of the class, by the model

    @property
    def value(self) -> float:
        hits, labelled, predicted = (np.atleast_1d(np.asarray(x, np.float64)) for x in self)
        seen = labelled + predicted
        return float(np.mean(2 * hits[seen > 0] / seen[seen > 0])) if np.any(seen > 0) else math.nan


class Matthews(NamedTuple):
    """Matthews' correlation of labels and predicted classes; of several classes as Gorodkin (2004) defines it. 0 where
    all labels, or all predictions, are of one class."""

    hits: Any  # predicted rightly, of any class
    labelled: Any  # [classes]
    predicted: Any  # [classes]

    @property
    def value(self) -> float:
        hits, labelled, predicted = (np.asarray(x, np.float64) for x in self)
        total = labelled.sum()
        spread = (total**2 - labelled @ labelled) * (total**2 - predicted @ predicted)
        return float((hits * total - labelled @ predicted) / math.sqrt(spread)) if spread > 0 else 0.0


class Pearson(NamedTuple):
    """Pearson's correlation of x and y from their weighted sums. Undefined where either is constant. The sums lose
    digits of values whose mean is far greater than their spread: centre those first."""

    weight: Any
    x: Any
    y: Any
    xx: Any
    yy: Any
    xy: Any

    @property
    def value(self) -> float:
        n, x, y, xx, yy, xy = (float(s) for s in self)
        spread = (n * xx - x * x) * (n * yy - y * y) if n * xx > x * x and n * yy > y * y else 0.0
        return max(-1.0, min(1.0, (n * xy - x * y) / math.sqrt(spread))) if spread > 0 else math.nan


Kinds = Mean | Each | Entropy | Sum | F1 | Matthews | Pearson
Metrics = dict[str, Any]  # of these kinds; untyped, as whoever knows a metric's name also knows its kind
Metric = TypeVar("Metric", bound=Kinds)


def added(parts: Iterable[Mapping[str, Metric]]) -> dict[str, Metric]:
    """The metrics of several parts as of one. A part that lacks a metric adds nothing to it."""
    whole: dict[str, Metric] = {}
    for part in parts:
        for name, metric in part.items():
            sums = zip(whole[name], metric, strict=True) if name in whole else None
            whole[name] = metric if sums is None else type(metric)(*(a + b for a, b in sums))
    return whole


def values(metrics: Mapping[str, Any]) -> dict[str, Any]:
    """Metrics as reported, floats or lists of them: means divided, sums and plain scalars as they are. Means of weight
    0 are left out, as are scores of labels that are undefined."""
    reported = {name: m for name, m in metrics.items() if not isinstance(m, Mean | Each) or np.any(m.weight)}
    numbers = {name: m.value if isinstance(m, Kinds) else float(m) for name, m in reported.items()}
    undefined = {name for name, m in reported.items() if isinstance(m, F1 | Pearson) and math.isnan(m.value)}
    return {name: number for name, number in numbers.items() if name not in undefined}


class AuxRecord(abc.ABC):
    """What a layer records in `aux` for the loss: a registered dataclass of arrays with leading axes [layers, B].

    Objectives collect these records by type, wherever in the model they come from, and add their losses, each times the
    weight configured for its name. They know neither the layer nor what the names mean."""

    @abc.abstractmethod
    def losses(self) -> dict[str, Mean]:
        """Auxiliary losses by name. The total sums over layers and rows, each row times its tokens; the weight is the
        number of layers, over which the losses of all records are averaged, or 1 for a loss of all layers together."""

    @abc.abstractmethod
    def metrics(self) -> Metrics:
        """Metrics to report, by name."""

    @abc.abstractmethod
    def by_layer(self) -> Metrics:
        """Metrics with a leading axis for layers, which are reported by name and place: `name/place`."""

    @property
    @abc.abstractmethod
    def alike(self) -> Hashable:
        """The same for records of a tower that can be joined."""

    @classmethod
    @abc.abstractmethod
    def joined(cls, records: Sequence[Any]) -> Any:
        """One record of the layers of several that are alike."""


def aux_losses(aux: Any, weights: Iterable[tuple[str, float]]) -> Any:
    """Sum of the recorded auxiliary losses, times the weights of their names; names without a weight do not count."""
    towers: dict[Hashable, list[AuxRecord]] = {}
    for path, record in _records(aux):
        tower = tuple(itertools.takewhile(lambda name: not name.isdecimal(), path))
        towers.setdefault((tower, record.alike), []).append(record)
    losses = added(records[0].joined(records).losses() for records in towers.values())
    terms = [weight * (losses[name].total / losses[name].weight) for name, weight in weights if name in losses]
    return sum(terms[1:], terms[0]) if terms else 0.0


def aux_metrics(aux: Any) -> Metrics:
    """Metrics of all records; those of layers under their places: the path of the record's layer in `aux`."""
    records = _records(aux)
    placed = {f"{name}/{'.'.join(at[:-1])}": m for at, record in records for name, m in record.by_layer().items()}
    return added(record.metrics() for _, record in records) | placed


def _records(aux: Any, path: tuple[str, ...] = ()) -> list[tuple[tuple[str, ...], AuxRecord]]:
    """All in an aux tree, dicts within dicts, in order, with their paths."""
    if isinstance(aux, AuxRecord):
        return [(path, aux)]
    inner = aux.items() if isinstance(aux, dict) else ()
    return [record for name, value in inner for record in _records(value, (*path, name))]
