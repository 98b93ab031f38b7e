"""What the recipes share: how long, in tokens; batches that grow; and the variant that runs anywhere."""

import hashlib
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ml_collections.config_dict import ConfigDict

from lm.core.component import to_dict
from lm.objectives.objective import Objective
from lm.train.config import as_config, default
from lm.train.optim.adafactor import Adafactor
from lm.train.optim.optimizer import Optimizer
from lm.train.optim.schedule import InverseSqrt, Linear, Schedule
from lm.zoo.registry import knobs

TINY = "tiny"  # the variant
SHAPES = {"layers": 2, "d_model": 64, "heads": 2, "vocab": 384}  # of most tiny models; 384: the byte tokenizer's


def of(family: str, size: str, tiny: dict[str, Any] = SHAPES, **own: Any) -> ConfigDict:
    """The defaults with this model: a published size, or for `TINY` these shapes. `own`: knobs of either.

    The corpus is left open; bfloat16, and all but matrix products computed anew, as on accelerators today."""
    config = default()
    with config.unlocked():
        config.model = knobs(family, **(tiny if size == TINY else {"size": size}), **own)
    config.data.source = ""
    config.train.dtype = "bfloat16"
    config.train.remat = "dots"
    return config


def last(config: ConfigDict, tokens: float, batch: float) -> None:
    """Train on so many `tokens` in batches of about so many: a multiple of 64 rows, so that the usual meshes divide it.
    config.data.length is set before."""
    config.data.batch_size = max(round(batch / config.data.length / 64), 1) * 64
    config.train.steps = steps(config, tokens)


def steps(config: ConfigDict, tokens: float) -> int:
    """How many steps that many tokens take, in whole batches."""
    return max(round(tokens / (config.data.batch_size * config.data.length)), 1)


def ramp(config: ConfigDict, tokens: float, parts: int = 8) -> None:
    """Let batches grow over the first `tokens`, in `parts` equal stairs from a part of the batch to all of it: each
    part is a microbatch. (Published ramps begin lower and have finer stairs.)"""
    config.data.batch_size = -(-config.data.batch_size // parts) * parts
    config.train.accumulate = parts
    unit = config.data.batch_size // parts
    stairs, at = [], 0
    for k in range(1, parts):
        stairs.append((at, k * unit))
        at += max(round(tokens / (parts - 1) / (k * unit * config.data.length)), 1)
    config.train.batch_warmup = (*stairs, (at, config.data.batch_size))


def under(config: ConfigDict, objective: Objective, length: int) -> None:
    """Train under this objective on rows of text of this length. (A function of the smaller length makes both again for
    the tiny variant, where an objective depends on it.)"""
    config.data.length = length
    with config.unlocked():
        config.objective = ConfigDict(to_dict(objective))


def moves(config: ConfigDict, optimizer: Optimizer, schedule: Schedule) -> None:
    """Train with another optimizer and schedule than the defaults, AdamW and a cosine."""
    with config.unlocked():
        config.optimizer, config.schedule = as_config(optimizer), as_config(schedule)


def as_t5(config: ConfigDict) -> None:
    """Adafactor with steps in proportion to a parameter's size, at 0.01 for 10,000 steps, then at 1 / sqrt(step)."""
    optimizer = Adafactor(learning_rate=1e-2, weight_decay=0.0, clip=0.0, relative=True)
    moves(config, optimizer, InverseSqrt(warmup=0, constant=10_000))


def line(warmup: int, final: float = 0.0) -> Linear:
    """A schedule: a line down from the peak, to nothing unless told otherwise."""
    return Linear(warmup=warmup, final_lr_ratio=final)


def small_run(config: ConfigDict, learning_rate: float = 3e-3) -> ConfigDict:
    """The recipe as it runs anywhere: few steps of few short rows of bytes, in float32, at a rate for small models."""
    config.data.source, config.data.tokenizer = "python-stdlib", "byte"
    config.data.length, config.data.batch_size = min(config.data.length, 64), 8
    config.train.update(steps=30, accumulate=1, batch_warmup=(), dtype="float32", remat="none", unroll=True)
    config.optimizer.learning_rate = learning_rate
    for knob in ("warmup", "decay", "constant"):
        if config.schedule.get(knob):
            config.schedule[knob] = 30 if knob == "decay" else 3
    config.log.update(every=1, eval_every=0, checkpoint_every=0, eval_batches=2)
    return config


def written(name: str, lines: Sequence[str]) -> str:
    """The path of a small file of these lines among temporary files, for tiny variants of what no corpus has. The same
    lines stand in the same place."""
    text = "".join(f"{line}\n" for line in lines)
    digest = hashlib.blake2b(text.encode(), digest_size=8).hexdigest()
    path = Path(tempfile.gettempdir()) / f"pure-lm-{digest}-{name}"
    if not path.exists() or path.read_text(encoding="utf-8") != text:
        path.write_text(text, encoding="utf-8")
    return str(path)
