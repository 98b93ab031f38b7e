"""The host half of loss-spike handling: stop, report skipped steps, or rewind, for the bad steps that
`lm.train.health.monitor` finds."""

import dataclasses
from collections.abc import Sequence
from typing import Any

from lm.core.errors import UserError
from lm.data.batches import Batches
from lm.train.health.monitor import Recovery

Event = dict[str, Any]  # a metrics record, which every later checkpoint holds too


def find_bad_steps(rule: Recovery, measured: Sequence[tuple[int, dict]]) -> list[Event]:
    """An event for each bad step among (step, metrics), which waits for those; of several that call for a rewind the
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
        if rule.action == "rewind":
            break
    return events


def check_limit(rule: Recovery, events: Sequence[Event]) -> None:
    """Raise `UserError` once a run has had more events than `rule.limit`."""
    if len(events) > rule.limit:
        last = events[-1]
        raise UserError(
            f"step {last['step']}: loss {last['bad_loss']}, bad step number {len(events)} of this run, more than "
            f"config.train.recovery.limit={rule.limit}: lower config.optimizer.learning_rate, or raise the limit"
        )


def rewind(rule: Recovery, batches: Batches, event: Event, checkpoint: int) -> tuple[Batches, Event]:
    """Batches and event of a run that returns to `checkpoint` because of a bad step (counted from 1): the same batches
    until `back` steps before the bad one, then `skip` batches later."""
    at = max(checkpoint, event["step"] - 1 - rule.back)
    skips = (*batches.skips, (at, rule.skip))
    return dataclasses.replace(batches, skips=skips), event | {"to": checkpoint, "from": at, "skipped": rule.skip}


def describe(event: Event) -> str:
    """One line about an event."""
    what = f"step {event['step']}: loss {event['bad_loss']}, gradient norm {event['bad_norm']}"
    if event["event"] == "skip":
        return f"{what}: its update is left out"
    return f"{what}: back to step {event['to']}, then past {event['skipped']} batches from step {event['from']} on"
