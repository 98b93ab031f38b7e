"""The host half of loss-spike handling: stop, report skipped steps, or go back, for the bad steps that
`lm.train.health.monitor` finds."""

import dataclasses
import math
from collections.abc import Sequence
from typing import Any

from lm.core.errors import UserError
from lm.data.batches import Batches
from lm.data.stages import StagedBatches
from lm.train.health.monitor import Recovery
from lm.train.optim.optimizer import Hyper

Event = dict[str, Any]  # a metrics record, which every later checkpoint holds too


def find_bad_steps(rule: Recovery, measured: Sequence[tuple[int, dict]]) -> list[Event]:
    """An event for each bad step among (step, metrics), which waits for those; where the run goes back, for the
    first. Raises `UserError` where the rule is to stop."""
    events = []
    for step, m in measured:
        if not float(m["bad"]):
            continue
        total, tokens = map(float, m["objective"])
        loss, norm = total / max(tokens, 1.0), float(m["grad_norm"])
        if rule.action == "stop":
            raise UserError(
                f"step {step}: loss {loss:.4g}, gradient norm {norm:.4g}: the run diverged. Earlier checkpoints are "
                "kept; lower config.optimizer.learning_rate, lengthen warmup, set clip, or let "
                "config.train.recovery.action=rewind or skip go around it"
            )
        # Numbers as text, because JSON has no NaN or infinity.
        events.append({"event": rule.action, "step": step, "bad_loss": f"{loss:.4g}", "bad_norm": f"{norm:.4g}"})
        if goes_back(rule):
            break
    return events


def goes_back(rule: Recovery) -> bool:
    """Whether a bad step takes the run back to a checkpoint."""
    return rule.action in ("rewind", "reshuffle", "lower")


def check_limit(rule: Recovery, events: Sequence[Event]) -> None:
    """Raise `UserError` once a run has had more events than `rule.limit`."""
    if len(events) > rule.limit:
        last = events[-1]
        raise UserError(
            f"step {last['step']}: loss {last['bad_loss']}, bad step number {len(events)} of this run, more than "
            f"config.train.recovery.limit={rule.limit}: lower config.optimizer.learning_rate, or raise the limit"
        )


def gone_back(
    rule: Recovery, batches: Batches | StagedBatches, event: Event, checkpoint: int
) -> tuple[Batches | StagedBatches, Event]:
    """Batches and event of a run that returns to `checkpoint` because of a bad step (counted from 1): the same batches
    until `back` steps before the bad one, then as the rule says. The event holds all that resuming needs."""
    at = max(checkpoint, event["step"] - 1 - rule.back)
    event |= {"to": checkpoint}
    match rule.action:
        case "rewind":
            skips = (*batches.skips, (at, rule.skip))
            return dataclasses.replace(batches, skips=skips), event | {"from": at, "skipped": rule.skip}
        case "reshuffle":
            rows = batches.rows_by(at)
            return dataclasses.replace(batches, reshuffles=(*batches.reshuffles, rows)), event | {
                "from": at,
                "rows": list(rows),
            }
    return batches, event | {"factor": rule.factor}


def reshuffles_of(events: Sequence[Event]) -> tuple[tuple[int, ...], ...]:
    """`Batches.reshuffles` after these events."""
    return tuple(tuple(event["rows"]) for event in events if event["event"] == "reshuffle")


def lowered(hyper: Hyper, events: Sequence[Event]) -> Hyper:
    """The optimizer's traced knobs after these events: the configured learning rate, times each factor."""
    factors = [event["factor"] for event in events if event["event"] == "lower"]
    return hyper | {"learning_rate": hyper["learning_rate"] * math.prod(factors)} if factors else hyper


def describe(event: Event) -> str:
    """One line about an event."""
    what = f"step {event['step']}: loss {event['bad_loss']}, gradient norm {event['bad_norm']}"
    match event["event"]:
        case "skip":
            return f"{what}: its update is left out"
        case "reshuffle":
            return f"{what}: back to step {event['to']}, then rows in another order from step {event['from']} on"
        case "lower":
            return f"{what}: back to step {event['to']}, from there on the learning rate times {event['factor']:g}"
    return f"{what}: back to step {event['to']}, then past {event['skipped']} batches from step {event['from']} on"
