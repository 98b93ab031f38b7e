"""What a run does about bad steps, of which `lm.train.watch` tells: stop, tell of those left out, or rewind."""

import dataclasses
from typing import Any

from lm.core.errors import UserError
from lm.data.batches import Batches
from lm.train.watch import Recovery

Event = dict[str, Any]


def diverged(step: int, loss: float, grad_norm: float) -> UserError:
    return UserError(
        f"step {step}: loss {loss:.4g}, gradient norm {grad_norm:.4g}: the run diverged. Earlier checkpoints are kept; "
        "lower config.optimizer.learning_rate, lengthen warmup, set clip, or let config.train.recovery.action=rewind "
        "or skip go around it"
    )


def check_limit(rule: Recovery, events: list[Event]) -> None:
    if len(events) > rule.limit:
        last = events[-1]
        raise UserError(
            f"step {last['step']}: loss {last['bad_loss']}, bad step number {len(events)} of this run, more than "
            f"config.train.recovery.limit={rule.limit}: lower config.optimizer.learning_rate, or raise the limit"
        )


def rewound(rule: Recovery, batches: Batches, bad: int, checkpoint: int) -> tuple[Batches, Event]:
    """The stream, and the event to record, of a run that goes back to `checkpoint` because of step `bad` (counted from
    1): as before until `back` steps before it, then `skip` batches further."""
    at = max(checkpoint, bad - 1 - rule.back)
    skips = (*batches.skips, (at, rule.skip))
    event = {"event": "rewind", "to": checkpoint, "skipped_from": at, "skipped": rule.skip}
    return dataclasses.replace(batches, skips=skips), event


def newest_before(rule: Recovery, steps: list[int], bad: int) -> int:
    """The newest of these checkpoints at least `back` steps before a bad one; 0, the beginning, if there is none."""
    return max((step for step in steps if step <= bad - 1 - rule.back), default=0)
