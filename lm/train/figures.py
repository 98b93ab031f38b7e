"""The figures of a step as a metrics record, and the clock they need."""

import math
import time
from typing import NamedTuple

import jax

from lm.core.metrics import values
from lm.runs.metrics import Record


class Reading(NamedTuple):
    seconds: float  # per step
    waiting: float  # share of them in which the devices had no step left, and no batch was ready


class Clock:
    """Time per step since the last reading, evaluations and saves left out."""

    def __init__(self, step: int) -> None:
        self.restart(step, 0.0)

    def restart(self, step: int, waited: float) -> None:
        self.step, self.waited, self.time = step, waited, time.perf_counter()

    def read(self, step: int, waited: float) -> Reading:
        reading = self.look(step, waited)
        self.restart(step, waited)
        return reading

    def look(self, step: int, waited: float) -> Reading:
        elapsed, steps = time.perf_counter() - self.time, max(step - self.step, 1)
        return Reading(elapsed / steps, (waited - self.waited) / elapsed)


def summary(step: int, measured: dict, clock: Reading, cost: float) -> Record | None:
    """A metrics record; None for a step whose figures are not finite. Means of a batch that predicted no token are left
    out. `cost`: seconds a step would take at peak."""
    m = jax.device_get(measured)
    if not (math.isfinite(m["objective"].total) and math.isfinite(m["grad_norm"])):
        return None
    record: Record = {"step": step, **values({name: metric for name, metric in m.items() if name != "bad"})}
    return record | {
        "tokens_per_second": record["tokens_read"] / clock.seconds,
        "seconds_per_step": clock.seconds,
        "waiting": clock.waiting,
        "mfu": cost / clock.seconds,
    }
