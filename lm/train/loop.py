"""The training loop: batch k, step, record, checkpoint."""

import contextlib
import dataclasses
import json
import math
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.experimental import multihost_utils
from ml_collections.config_dict import ConfigDict
from rich.console import Console

from lm.core.component import from_dict
from lm.core.errors import UserError
from lm.core.param import count
from lm.data.batches import VERSIONS
from lm.data.open import Data
from lm.evaluate.perplexity import Evaluator, pooled
from lm.model.cost import training_flops
from lm.train.checkpoint import Checkpoints, meta_of
from lm.train.config import check
from lm.train.feed import Feed, batches_of, evaluation_batches, lengths_of, open_data_of
from lm.train.hardware import peak_flops
from lm.train.metrics import Metrics, plot_losses, progress_bar, status
from lm.train.optimizer import hyper_of
from lm.train.origin import completed, origin_of, text_for
from lm.train.profile import Profiler
from lm.train.recovery import Event, bad_steps, check_limit, rewound, told
from lm.train.setup import check_fit, first_state, sharding_of, start, trainer_of
from lm.zoo.build import build

Record = dict[str, Any]


def train(config: ConfigDict, workdir: str | Path, console: Console | None = None) -> Record:
    """Train as `config` says, in `workdir`, going on from its latest checkpoint. Returns the last evaluation's figures.

    Writes config.json, metrics.jsonl, loss.png and checkpoints/. SIGTERM saves a checkpoint and returns early; SIGUSR1
    traces a few steps. Of several processes (`jax.distributed`) the first writes and tells."""
    check(config)
    chief = jax.process_index() == 0
    console = Console(quiet=True) if not chief else console or Console(stderr=True)
    workdir = Path(workdir).expanduser()
    origin = origin_of(config, workdir)
    config = completed(config, origin)
    model, objective = build(config.model), from_dict(config.objective.to_dict(), "config.objective")
    sharding = sharding_of(config)
    data = open_data_of(config, origin and origin.text)
    check_fit(config, model, data.tokenizer)
    text, notes = text_for(config, origin, model, data)
    for note in notes:
        console.print(f"[yellow]note:[/] {note}")
    batches, held_out = batches_of(config, data, objective)
    trainer = trainer_of(config, model, objective, sharding)
    evaluator = Evaluator(model, objective, trainer.dtype, sharding, trainer.run, trainer.memory)

    try:
        workdir.mkdir(parents=True, exist_ok=True)
    except OSError as e:
        raise UserError(f"cannot make the folder {workdir}: {e.strerror}; choose another --workdir") from e
    checkpoints = Checkpoints(workdir, keep=config.log.keep)
    meta = meta_of(config, model, data.tokenizer, data.digest, text and text.saved())
    hyper = hyper_of(config.optimizer)
    state, saved = start(trainer, hyper, checkpoints, meta)
    events: list[Event] = saved["events"]
    batches = dataclasses.replace(batches, skips=tuple(map(tuple, saved["skips"])))
    step, last = int(state.step), config.train.steps
    metrics = Metrics(workdir, config.log.tensorboard, writes=chief)
    with writing(workdir):
        if chief:
            (workdir / "config.json").write_text(json.dumps(config.to_dict(), indent=2))
        metrics.resume(step, events)
    step_fn = trainer.jitted(state)
    title = f"{workdir.name}: {count(model.spec()):,} parameters"
    flops = training_flops(model, *lengths_of(batches))  # of a row
    peak, peak_from = peak_flops(config.train.dtype)
    console.print(
        f"{count(model.spec()):,} parameters, {flops:.3g} FLOPs a row; {_told_data(data)}; "
        f"{jax.device_count()} {jax.devices()[0].device_kind} device(s), "
        f"peak {peak / 1e9:,.0f} GFLOP/s ({peak_from})" + (f"; resumed at step {step}" if step else "")
    )
    if (versions := saved["versions"]) != VERSIONS:
        console.print(f"[yellow]warning:[/] saved with {versions}, now {VERSIONS}: batches may be drawn otherwise")

    def evaluate() -> Record:
        weights = state.params if state.ema is None else state.ema
        chosen = [of_source[: config.log.eval_batches or None] for of_source in held_out.ranges]
        results = [evaluator(weights, evaluation_batches(held_out, which, sharding)) for which in chosen]
        by_name = {part.name: r["loss"] for part, r in zip(data.parts, results, strict=True)}
        return pooled(results) | ({"loss_of": by_name} if len(by_name) > 1 else {})

    result: Record = {}
    if step >= last:
        checkpoints.close()
        result = evaluate()
        console.print(f"nothing to do: {workdir} is at step {step} of {last}; validation {_told(result)}")
        return result
    progress, task = progress_bar(last, step, console)
    feed, clock = Feed(batches, sharding, step), Clock(step)
    profiler = Profiler(workdir / "profile", config.log.profile_at, config.log.profile_steps, console)
    begun, pending = step, []  # steps whose verdict has not been looked at: looking waits for the device
    # Whatever ends the loop, a save that is under way is finished, and SIGTERM does not disturb it.
    closing = contextlib.closing
    with Terminated() as terminated, closing(checkpoints), closing(metrics), writing(workdir), progress, profiler:
        while step < last:
            step += 1
            profiler.before(step)
            state, measured = step_fn(state, next(feed))
            profiler.after(step, measured)
            pending.append((step, measured))
            due = step % config.log.every == 0 or step in (begun + 1, last)
            stop = terminated(due)
            saving = stop or step == last or _due(step, config.log.checkpoint_every)
            if not (due or saving):
                continue
            found = bad_steps(trainer.recovery, pending)
            pending.clear()
            rewinds = bool(found) and trainer.recovery.action == "rewind"
            if rewinds:
                back_to = checkpoints.newest(found[0]["step"] - 1 - trainer.recovery.back) or 0
                batches, found[0] = rewound(trainer.recovery, batches, found[0], back_to)
            for event in found:
                events.append(event)
                metrics.write(event)
                console.print(f"[yellow]{told(event)}[/]")
            check_limit(trainer.recovery, events)
            if rewinds:
                checkpoints.forget(after=back_to)
                if back_to:
                    state = checkpoints.state(back_to, trainer.abstract(hyper), hyper)
                else:
                    state = first_state(trainer, hyper, config.train.init_from)
                feed.close()
                step, feed = back_to, Feed(batches, sharding, back_to)
                metrics.resume(step, events)
                clock.restart(step, feed.waited)
                progress.update(task, completed=step)
                continue
            record = summary(step, measured, clock.read(step, feed.waited), flops * batches.rows_of(step - 1) / peak)
            if record is not None:
                metrics.write(record)
                progress.update(task, completed=step, status=status(record))
            if step == last or _due(step, config.log.eval_every):
                result = evaluate()
                metrics.write({"step": step, **{f"validation_{k}": v for k, v in result.items()}})
                if chief:
                    plot_losses(metrics.path, workdir / "loss.png", title)
                console.print(f"step {step}: validation {_told(result)}")
                clock.restart(step, feed.waited)
            if saving:
                checkpoints.save(state, meta | {"skips": batches.skips, "events": events})
                clock.restart(step, feed.waited)
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


def _told_data(data: Data) -> str:
    documents, dropped = (sum(getattr(p.train, n) for p in data.parts) for n in ("documents", "dropped"))
    empty = f", {dropped:,} without text left out" if dropped else ""
    sources = f" of {len(data.parts)} sources" if len(data.parts) > 1 else ""
    return (
        f"{data.tokens:,} training tokens{sources} ({documents:,} documents{empty}), "
        f"{sum(cache.size for cache in data.validation):,} for validation"
    )


def _told(result: Record) -> str:
    bits = f", {result['bits_per_byte']:.4f} bits per byte" if "bits_per_byte" in result else ""
    of = "".join(f"; {name} {loss:.4f}" for name, loss in result.get("loss_of", {}).items())
    return f"loss {result['loss']:.4f} nats per token{bits}{of}"


def summary(step: int, measured: dict, clock: "Reading", cost: float) -> Record | None:
    """A metrics record; None for a step whose figures are not finite. `cost`: seconds a step would take at peak."""
    m = {k: float(v) for k, v in measured.items()}
    if not (math.isfinite(m["total"]) and math.isfinite(m["grad_norm"])):
        return None
    tokens = max(m["tokens"], 1.0)
    record = {
        "step": step,
        "loss": m["nll"] / tokens,
        "objective": m["total"] / tokens,
        "accuracy": m["hits"] / tokens,
        "tokens": m["tokens"],
    }
    if m.get("bytes"):
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
        elapsed, steps = time.perf_counter() - self.time, max(step - self.step, 1)
        reading = Reading(elapsed / steps, (waited - self.waited) / elapsed)
        self.restart(step, waited)
        return reading


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

    def __call__(self, together: bool) -> bool:
        """Several processes must answer alike, and ask one another only where all of them are `together`."""
        if jax.process_count() == 1:
            return self._came
        return together and bool(multihost_utils.process_allgather(np.array(self._came)).any())

    def __exit__(self, *_: Any) -> None:
        if self._before is not None:
            signal.signal(signal.SIGTERM, self._before)
