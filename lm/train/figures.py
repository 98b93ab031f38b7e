"""The figures of a step as a metrics record, and the clock they need."""

import math
import time
from typing import Any, NamedTuple

Record = dict[str, Any]


class Reading(NamedTuple):
    seconds: float  # per step
    waiting: float  # share of them in which no batch was ready


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
    """A metrics record; None for a step whose figures are not finite. Of a batch that predicted no token it has no
    losses. `cost`: seconds a step would take at peak."""
    m = {k: float(v) for k, v in measured.items()}
    if not (math.isfinite(m["total"]) and math.isfinite(m["grad_norm"])):
        return None
    record: Record = {"step": step}
    if tokens := m["tokens"]:
        record |= {"loss": m["nll"] / tokens, "objective": m["total"] / tokens, "accuracy": m["hits"] / tokens}
    record["tokens"] = tokens
    if tokens and m.get("bytes"):
        record["bits_per_byte"] = m["nll"] / math.log(2) / m["bytes"]
    if "router_choices" in m:
        record["router_dropped"] = m["router_dropped"] / max(m["router_choices"], 1)
        record["router_peak"] = m["router_peak"] / max(m["router_choices"], 1)
    record |= {k: m[k] for k in ("learning_rate", "grad_norm", "noise_scale", "loss_scale") if k in m}
    return record | {
        "tokens_per_second": tokens / clock.seconds,
        "seconds_per_step": clock.seconds,
        "waiting": clock.waiting,
        "mfu": cost / clock.seconds,
    }
