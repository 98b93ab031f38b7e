"""The training loop: batch k, step, record, checkpoint."""

import contextlib
import dataclasses
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
from ml_collections.config_dict import ConfigDict
from rich.console import Console

from lm.core.errors import UserError
from lm.core.metrics import added, values
from lm.core.param import count
from lm.data.batches import VERSIONS
from lm.data.open import Data
from lm.inspect.cost import training_flops
from lm.runs import lock
from lm.runs.checkpoint import Checkpoints, meta_of
from lm.runs.metrics import PLOT_ERRORS, MetricsLog, plot_losses
from lm.train import record
from lm.train.config import check
from lm.train.data import check_predicts, lengths_of, shapes_of
from lm.train.figures import Clock, Record, summary
from lm.train.footprint import allocating, check_exact, check_room, footprint, needed
from lm.train.footprint import told as told_size
from lm.train.hardware import memory_limit, peak_flops
from lm.train.health.recovery import Event, bad_steps, check_limit, rewound, told
from lm.train.origin import completed, origin_of, text_for
from lm.train.prefetch import DevicePrefetcher, evaluation_batches
from lm.train.profile import Profiler
from lm.train.progress import console_of, progress_of
from lm.train.resume import new_state, resume_or_start
from lm.train.setup import assemble
from lm.train.state import State, save_state, saved_state
from lm.train.step import Trainer
from lm.train.stop import Stop

WARNING = "[yellow]warning:[/]"


def train(config: ConfigDict, workdir: str | Path, console: Console | None = None) -> Record:
    """Train as `config` says, in `workdir`, going on from its latest checkpoint. Returns the last evaluation's figures.

    Writes config.json, metrics.jsonl, loss.png and checkpoints/. SIGTERM saves a checkpoint and returns early, Ctrl-C
    saves one and raises `KeyboardInterrupt`; SIGUSR1 traces a few steps. Of several processes (`jax.distributed`) the
    first writes and tells."""
    check(config)
    record.plain(config)  # complains now, not at the first checkpoint, of what cannot be saved
    chief = jax.process_index() == 0
    console = (console or console_of(chief)) if chief else console_of(chief)
    workdir = Path(workdir).expanduser()
    with allocating("training"):
        run = _Prepared(config, workdir, console, chief)
        try:
            workdir.mkdir(parents=True, exist_ok=True)
        except OSError as e:
            raise UserError(f"cannot make the folder {workdir}: {e.strerror}; choose another --workdir") from e
        with lock.alone(workdir) if chief else contextlib.nullcontext():
            return _train(run)


class _Prepared:
    """What a run is made of, checked before its folder is touched."""

    def __init__(self, config: ConfigDict, workdir: Path, console: Console, chief: bool) -> None:
        origin = origin_of(config, workdir)
        config = completed(config, origin)
        self.config, self.workdir, self.console, self.chief = config, workdir, console, chief
        self.parts = parts = assemble(config, text=origin and origin.text)
        _ = parts.model, parts.objective, parts.sharding  # of which errors come before those of the data
        parts.check_fit()
        self.text, notes = text_for(config, origin, parts.model, parts.data)
        for note in notes:
            console.print(f"[yellow]note:[/] {note}", soft_wrap=True)
        self.limit = memory_limit()
        shapes = shapes_of(parts.batches)
        room = footprint(parts.trainer, parts.abstract_state, shapes)
        if warned := check_room(room, self.limit):
            console.print(f"{WARNING} {warned}", soft_wrap=True)

    def evaluate(self, state: State) -> Record:
        parts = self.parts
        weights = parts.trainer.averaged(state)
        chosen = [of_source[: self.config.log.eval_batches or None] for of_source in parts.held_out.ranges]
        results = [parts.evaluator(weights, evaluation_batches(parts.held_out, w, parts.sharding)) for w in chosen]
        by_name = {part.name: values(r)["loss"] for part, r in zip(parts.data.parts, results, strict=True)}
        return values(added(results)) | ({"loss_of": by_name} if len(by_name) > 1 else {})


def _train(run: _Prepared) -> Record:
    config, workdir, console, parts = run.config, run.workdir, run.console, run.parts
    trainer, hyper = parts.trainer, parts.hyper
    checkpoints = Checkpoints(workdir, keep=config.log.keep)
    wording = run.text and run.text.saved()
    program, data = parts.program, parts.data
    meta = meta_of(config, parts.model, data.tokenizer, data.digest, wording, program.transforms)
    state, saved = resume_or_start(trainer, hyper, checkpoints, meta)
    step, last = int(state.step), config.train.steps
    events: list[Event] = saved["events"]
    changes: list[record.Change] = saved["changes"]
    changed = record.changed(record.completed(saved["config"]), meta["config"])
    batches = dataclasses.replace(parts.batches, skips=tuple(map(tuple, saved["skips"])))
    metrics = MetricsLog(workdir, config.log.tensorboard, writes=run.chief)
    size = f"{count(program.spec()):,} parameters"
    title = f"{workdir.name}: {size}"

    def evaluate(anew: bool = True) -> Record:
        """What fails here is told, and costs nothing but its figures."""
        try:
            result = run.evaluate(state)
        except (UserError, jax.errors.JaxRuntimeError) as e:
            if jax.process_count() > 1 and not isinstance(e, UserError):
                raise  # the others may be waiting
            console.print(f"{WARNING} step {step}: no validation figures: {_line(e)}", soft_wrap=True)
            return {}
        console.print(f"step {step}: validation {_told(result)}", soft_wrap=True)
        if anew:
            with writing(workdir):
                metrics.write({"step": step, **{f"validation_{k}": v for k, v in result.items()}})
            plot()
        return result

    def plot() -> None:
        try:
            if run.chief:
                plot_losses(metrics.path, workdir / "loss.png", title)
        except PLOT_ERRORS as e:
            console.print(f"{WARNING} loss.png could not be drawn: {_line(e)}", soft_wrap=True)

    if step >= last:
        checkpoints.close()
        unused = f"; {record.told(changed)}: without effect" if changed else ""
        console.print(f"nothing to do: {workdir} is at step {step} of {last}{unused}", soft_wrap=True)
        with contextlib.closing(metrics):
            return evaluate(anew=not metrics.evaluated(step))  # a kill may have come between save and evaluation
    if changed:
        changes.append({"event": "change", "step": step, "changed": changed})
    with writing(workdir):
        aside = record.keep(workdir, saved["config"], begins=step == 0) if run.chief else None
        metrics.resume(step, [*events, *changes])
    if aside is not None:
        console.print(f"the config of an earlier start, of which nothing was saved, is now {aside}", soft_wrap=True)
    step_fn = trainer.jitted(state)
    flops = training_flops(parts.model, *lengths_of(batches), program.transforms)  # of a row
    peak, peak_from = peak_flops(config.train.dtype)
    with_changes = f" with {record.told(changed)}" if changed else ""
    console.print(
        f"{size}{_told_trained(trainer)}, {flops:.3g} FLOPs a row; {_told_data(parts.data)}; "
        f"{jax.device_count()} {jax.devices()[0].device_kind} device(s), peak {peak / 1e9:,.0f} GFLOP/s ({peak_from})"
        + (f"; resumed at step {step}{with_changes}" if step or changed else ""),
        soft_wrap=True,
    )
    if (versions := saved["versions"]) != VERSIONS:
        console.print(f"{WARNING} saved with {versions}, now {VERSIONS}: batches may be drawn otherwise")
    check_predicts(batches, parts.objective, step)
    feed = DevicePrefetcher(batches, parts.sharding, step)
    _compile(step_fn, state, feed, run)

    result: Record = {}
    if step and _due(step, config.log.eval_every) and not metrics.evaluated(step):
        result = evaluate()  # saved, and killed before it was evaluated
    profiler = Profiler(workdir / "profile", config.log.profile_at, config.log.profile_steps, console)
    clock = Clock(step)
    begun, pending = step, []  # steps whose verdict has not been looked at: looking waits for the device
    empty = False
    # Whatever ends the loop, a save that is under way is finished, and no signal disturbs it.
    closing = contextlib.closing
    progress = progress_of(last, step, console)
    with Stop() as stop_asked, closing(checkpoints), closing(metrics), writing(workdir), progress, profiler:
        while step < last:
            step += 1
            profiler.before(step)
            state, measured = step_fn(state, next(feed))
            profiler.after(step, measured)
            pending.append((step, measured))
            due = step % config.log.every == 0 or step in (begun + 1, last)
            cost = flops * batches.rows_of(step - 1) / peak
            stop = stop_asked(due)
            saving = bool(stop) or step == last or _due(step, config.log.checkpoint_every)
            if not (due or saving):
                if progress.wants():
                    jax.block_until_ready(measured)  # else the clock would not see what the device still has to do
                    if seen := summary(step, measured, clock.look(step, feed.waited), cost):
                        progress.tell(step, seen)
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
                console.print(f"[yellow]{told(event)}[/]", soft_wrap=True)
            check_limit(trainer.recovery, events)
            if rewinds:
                checkpoints.forget(after=back_to)
                if back_to:
                    state = saved_state(checkpoints, back_to, trainer.abstract(hyper), hyper)
                else:
                    state = new_state(trainer, hyper, config.train.init_from)
                feed.close()
                step, feed = back_to, DevicePrefetcher(batches, parts.sharding, back_to)
                changes = [c | {"step": min(c["step"], step)} for c in changes]  # they hold for what is repeated too
                metrics.resume(step, [*events, *changes])
                clock.restart(step, feed.waited)
                progress.back(step)
                continue
            seen = summary(step, measured, clock.read(step, feed.waited), cost)
            if seen is not None:
                metrics.write(seen)
                progress.tell(step, seen)
                if not (seen["tokens"] or empty):
                    empty = True
                    name = type(parts.objective).__name__
                    console.print(f"{WARNING} step {step}: {name} predicts no token in its batch", soft_wrap=True)
            if saving:
                save_state(checkpoints, state, meta | {"skips": batches.skips, "events": events, "changes": changes})
                clock.restart(step, feed.waited)
            if stop:
                checkpoints.wait()
                told_stop = f"{stop}: saved step {step} in {checkpoints.path}; run the same command to go on"
                console.print(told_stop, soft_wrap=True)
                if stop == "Ctrl-C":
                    raise KeyboardInterrupt(told_stop)
                return result
            if step == last or _due(step, config.log.eval_every):
                result = evaluate()
                clock.restart(step, feed.waited)
    return result


def _compile(step_fn: Any, state: State, feed: DevicePrefetcher, run: _Prepared) -> None:
    """Compile the step, which its first call then finds done."""
    console, begun = run.console, time.perf_counter()
    console.print("compiling the train step ...")
    with allocating("compiling the train step"):
        exact = needed(step_fn.lower(state, feed.ahead).compile().memory_analysis())
    seconds, memory = time.perf_counter() - begun, f"; it needs {told_size(exact)} a device" if exact else ""
    console.print(f"compiled in {seconds:.1f} s{memory}", soft_wrap=True, highlight=False)
    check_exact(exact, run.limit)


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


def _line(e: BaseException) -> str:
    return f"{type(e).__name__ + ': ' if not isinstance(e, UserError) else ''}{' '.join(str(e).split())[:300]}"


def _told_trained(trainer: Trainer) -> str:
    trains = count(trainer.optimizer.spec)
    return f" ({trains:,} train)" if trainer.program.transforms else ""


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
