"""The training loop: batch k, step, record, checkpoint."""

import contextlib
import json
import math
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
from ml_collections.config_dict import ConfigDict
from rich.console import Console

from lm.core.component import from_dict
from lm.core.errors import UserError
from lm.core.param import count
from lm.evaluate.perplexity import Evaluator
from lm.model.cost import training_flops
from lm.train.checkpoint import Checkpoints, meta_of
from lm.train.config import check
from lm.train.hardware import peak_flops
from lm.train.metrics import Metrics, plot_losses, progress_bar, status
from lm.train.optimizer import hyper_of
from lm.train.setup import (
    batches_of,
    check_fit,
    lengths_of,
    open_data_of,
    prefetched,
    put,
    sharding_of,
    start,
    trainer_of,
)
from lm.zoo.build import build

Record = dict[str, Any]


def train(config: ConfigDict, workdir: str | Path, console: Console | None = None) -> Record:
    """Train as `config` says, in `workdir`, going on from its latest checkpoint. Returns the last evaluation's figures.

    Writes config.json, metrics.jsonl, loss.png and checkpoints/. SIGTERM saves a checkpoint and returns early."""
    check(config)
    console = console or Console(stderr=True)
    workdir = Path(workdir).expanduser()
    model, objective = build(config.model), from_dict(config.objective.to_dict(), "config.objective")
    sharding = sharding_of(config)
    data = open_data_of(config)
    check_fit(config, model, data.tokenizer)
    batches, held_out = batches_of(config, data, objective)
    trainer = trainer_of(config, model, objective, sharding)
    evaluator = Evaluator(model, objective, trainer.dtype, sharding, trainer.run)

    try:
        workdir.mkdir(parents=True, exist_ok=True)
    except OSError as e:
        raise UserError(f"cannot make the folder {workdir}: {e.strerror}; choose another --workdir") from e
    checkpoints = Checkpoints(workdir, keep=config.log.keep)
    meta = meta_of(config, model, data.tokenizer, data.train.digest)
    state = start(trainer, hyper_of(config.optimizer), checkpoints, meta)
    first, last = int(state.step), config.train.steps
    with writing(workdir):
        (workdir / "config.json").write_text(json.dumps(config.to_dict(), indent=2))
        metrics = Metrics(workdir, resumed_at=first)
    step_fn = trainer.jitted(state)
    flops = training_flops(model, *lengths_of(batches)) * config.data.batch_size
    peak, peak_from = peak_flops(config.train.dtype)
    console.print(
        f"{count(model.spec()):,} parameters, {flops / config.data.batch_size:.3g} FLOPs a row; "
        f"{len(data.train.tokens):,} training tokens ({data.train.documents:,} documents), "
        f"{len(data.validation.tokens):,} for validation; {jax.device_count()} {jax.devices()[0].device_kind} "
        f"device(s), "
        f"peak {peak / 1e9:,.0f} GFLOP/s ({peak_from})" + (f"; resumed at step {first}" if first else "")
    )

    def evaluate() -> Record:
        chosen = range(len(held_out))[: config.log.eval_batches or None]
        return evaluator(state.params, (put(held_out.batch(k), sharding) for k in chosen))

    result: Record = {}
    if first >= last:
        checkpoints.close()
        result = evaluate()
        console.print(f"nothing to do: {workdir} is at step {first} of {last}; validation {_told(result)}")
        return result
    progress, task = progress_bar(last, first, console)
    stream = prefetched(batches.iterate(first), sharding)
    clock = Clock(first)
    # Whatever ends the loop, a save that is under way is finished, and SIGTERM does not disturb it.
    with Terminated() as terminated, contextlib.closing(checkpoints), writing(workdir), progress:
        for step in range(first + 1, last + 1):
            state, measured = step_fn(state, next(stream))
            stop = terminated()
            due = step % config.log.every == 0 or step in (first + 1, last)
            saving = stop or step == last or _due(step, config.log.checkpoint_every)
            if due or saving:
                record = summary(step, measured, clock.rate(step), flops / peak)
                metrics.write(record)
                progress.update(task, completed=step, status=status(record))
            if step == last or _due(step, config.log.eval_every):
                result = evaluate()
                metrics.write({"step": step, **{f"validation_{k}": v for k, v in result.items()}})
                plot_losses(metrics.path, workdir / "loss.png", f"{workdir.name}: {count(model.spec()):,} parameters")
                console.print(f"step {step}: validation {_told(result)}")
                clock.restart(step)
            if saving:
                checkpoints.save(state, meta)
                clock.restart(step)
            if stop:
                checkpoints.wait()
                console.print(f"SIGTERM: saved step {step} in {checkpoints.path}; run the same command to go on")
                return result
    return result


@contextlib.contextmanager
def writing(workdir: Path) -> Iterator[None]:
    """Tell of a full disk in one line."""
    try:
        yield
    except OSError as e:
        raise UserError(
            f"cannot write to {workdir}: {e.strerror}; the checkpoints are kept: make room, then run the same command"
        ) from e


def _due(step: int, every: int) -> bool:
    return every > 0 and step % every == 0


def _told(result: Record) -> str:
    bits = f", {result['bits_per_byte']:.4f} bits per byte" if "bits_per_byte" in result else ""
    return f"loss {result['loss']:.4f} nats per token{bits}"


def summary(step: int, measured: dict, seconds: float, cost: float) -> Record:
    """A metrics record. `seconds` per step, `cost` = seconds a step would take at peak.

    Raises `UserError` when the loss or gradient is not finite: nothing of that step is saved."""
    m = {k: float(v) for k, v in measured.items()}
    tokens = max(m["tokens"], 1.0)
    loss = m["nll"] / tokens
    if not (math.isfinite(m["total"]) and math.isfinite(m["grad_norm"])):
        raise UserError(
            f"step {step}: loss {loss:.4g}, gradient norm {m['grad_norm']:.4g}: the run diverged. Earlier "
            f"checkpoints are "
            "kept; lower config.optimizer.learning_rate, lengthen warmup, or set clip"
        )
    record = {"step": step, "loss": loss, "objective": m["total"] / tokens, "accuracy": m["hits"] / tokens}
    if m.get("bytes"):
        record["bits_per_byte"] = m["nll"] / math.log(2) / m["bytes"]
    if "router_choices" in m:
        record["router_dropped"] = m["router_dropped"] / max(m["router_choices"], 1)
        record["router_peak"] = m["router_peak"] / max(m["router_choices"], 1)
    speed = {"tokens_per_second": tokens / seconds, "seconds_per_step": seconds, "mfu": cost / seconds}
    return record | {"learning_rate": m["learning_rate"], "grad_norm": m["grad_norm"]} | speed


class Clock:
    """Seconds per step since the last reading, evaluations and saves left out."""

    def __init__(self, step: int) -> None:
        self.restart(step)

    def restart(self, step: int) -> None:
        self.step, self.time = step, time.perf_counter()

    def rate(self, step: int) -> float:
        seconds = (time.perf_counter() - self.time) / max(step - self.step, 1)
        self.restart(step)
        return seconds


class Terminated:
    """Whether SIGTERM has come (pre-emption, a scheduler's stop) since this was entered."""

    def __enter__(self) -> "Terminated":
        self._came = False
        try:
            self._before = signal.signal(signal.SIGTERM, self._note)
        except ValueError:  # not the main thread (a notebook's executor): then there is no handler to set
            self._before = None
        return self

    def _note(self, *_: Any) -> None:
        self._came = True

    def __call__(self) -> bool:
        return self._came

    def __exit__(self, *_: Any) -> None:
        if self._before is not None:
            signal.signal(signal.SIGTERM, self._before)
