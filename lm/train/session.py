"""The state of a training run, and what its loop does every so often: record, recover, save, evaluate."""

import contextlib
import dataclasses
import time
from collections.abc import Iterator
from itertools import pairwise
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
from lm.objectives.denoising import short_spans
from lm.runs.checkpoint import Checkpoints, meta_of
from lm.runs.metrics import PLOT_ERRORS, MetricsLog, plot_losses
from lm.train import record
from lm.train.data import check_predicts, lengths_of, open_data_of, shapes_of
from lm.train.figures import Clock, Record, summary
from lm.train.footprint import allocating, check_exact, check_room, footprint, needed, readable
from lm.train.hardware import memory_limit, peak_flops
from lm.train.health.recovery import (
    Event,
    check_limit,
    describe,
    find_bad_steps,
    goes_back,
    gone_back,
    lowered,
    reshuffles_of,
)
from lm.train.origin import completed, operated, origin_of, surgery_of, text_for
from lm.train.prefetch import DevicePrefetcher, evaluation_batches
from lm.train.profile import Profiler
from lm.train.progress import RunProgress
from lm.train.resume import new_state, resume_or_start
from lm.train.setup import assemble
from lm.train.state import save_state, saved_state
from lm.train.step import Trainer

WARNING = "[yellow]warning:[/]"


class Prepared:
    """The parts of a run, checked before its folder is touched."""

    def __init__(self, config: ConfigDict, workdir: Path, console: Console, chief: bool) -> None:
        """`chief`: whether this is the one process, of several, that writes and reports."""
        origin = origin_of(config, workdir)
        text = origin and origin.text
        config, origin = operated(config, origin, lambda: open_data_of(config, text).tokenizer.vocab_size)
        config = completed(config, origin)
        self.config, self.workdir, self.console, self.chief = config, workdir, console, chief
        self.parts = parts = assemble(config, text=text)
        _ = (
            parts.stage_configs,
            parts.model,
            parts.objective,
            parts.sharding,
            parts.memory,
        )  # their errors come before those of the data
        parts.check_fit()
        self.text, notes = text_for(config, origin, parts.model, parts.data)
        for note in (*notes, *short_spans(parts.objective, config.data.length)):
            self.tell(f"[yellow]note:[/] {note}")
        self.limit = memory_limit()
        for first, stage in parts.stages:
            batch = shapes_of(parts.batches, first)
            if warned := check_room(footprint(stage.trainer, parts.abstract_state, batch), self.limit):
                self.tell(f"{WARNING} {warned}")

    def tell(self, line: str) -> None:
        self.console.print(line, soft_wrap=True)


class Session:
    """A run in progress: its state, next batch, checkpoints and records. Leaving its `with` block, for whatever reason,
    finishes a pending save."""

    def __init__(self, run: Prepared) -> None:
        """Start at step 0, or at the latest checkpoint."""
        self.run, self.parts, self.config, self.tell = run, run.parts, run.config, run.tell
        parts, data, program = run.parts, run.parts.data, run.parts.program
        self.checkpoints = Checkpoints(run.workdir, keep=run.config.log.keep)
        wording = run.text and run.text.saved()
        self.meta = meta_of(run.config, parts.model, data.tokenizer, parts.digest, wording, program.transforms)
        self.state, self.saved = resume_or_start(
            parts.trainer, parts.hyper, self.checkpoints, self.meta, surgery_of(run.config)
        )
        self.step = self.begun = int(self.state.step)
        self.last = run.config.train.steps
        self.events: list[Event] = self.saved["events"]
        self.changes: list[record.Change] = self.saved["changes"]
        self.changed = record.changed(record.completed(self.saved["config"]), self.meta["config"])
        skips = tuple(map(tuple, self.saved["skips"]))
        self.batches = dataclasses.replace(parts.batches, skips=skips, reshuffles=reshuffles_of(self.events))
        self.metrics = MetricsLog(run.workdir, run.config.log.tensorboard, writes=run.chief)
        self.size = f"{count(program.spec()):,} parameters"
        self.stages, self.stage = parts.stages, 0
        self.programs: list[tuple[Trainer, jax.stages.Wrapped]] = []  # steps, which stages may share
        self.pending: list[tuple[int, dict]] = []  # steps not read yet: reading waits for the device
        self.warned_empty = False

    # Begin

    def nothing_to_do(self) -> Record:
        """The last metrics of a run that is already finished."""
        self.checkpoints.close()
        unused = f"; {record.describe(self.changed)}: without effect" if self.changed else ""
        self.tell(f"nothing to do: {self.run.workdir} is at step {self.step} of {self.last}{unused}")
        with contextlib.closing(self.metrics):
            return self.evaluate(anew=not self.metrics.evaluated(self.step))

    def begin(self) -> None:
        """Record the run's config, describe the run, and compile its step."""
        config, parts, workdir = self.config, self.parts, self.run.workdir
        if self.changed:
            self.changes.append({"event": "change", "step": self.step, "changed": self.changed})
        with writing(workdir):
            aside = record.keep(workdir, self.saved["config"], begins=self.step == 0) if self.run.chief else None
            self.metrics.resume(self.step, self._marks())
        if aside is not None:
            self.tell(f"the config of an earlier start, of which nothing was saved, is now {aside}")
        self._choose(self._stage_of(self.step))
        flops, (peak, peak_from) = self.flops, peak_flops(config.train.dtype)
        with_changes = f" with {record.describe(self.changed)}" if self.changed else ""
        self.tell(
            f"{self.size}{_trained(parts.trainer)}, {flops:.3g} FLOPs a row; {_data_line(parts.data)}; "
            f"{jax.device_count()} {jax.devices()[0].device_kind} device(s), peak {peak / 1e9:,.0f} GFLOP/s "
            f"({peak_from})" + (f"; resumed at step {self.step}{with_changes}" if self.step or self.changed else "")
        )
        if (versions := self.saved["versions"]) != VERSIONS:
            self.tell(f"{WARNING} saved with {versions}, now {VERSIONS}: batches may be drawn otherwise")
        for first, stage in parts.stages:
            check_predicts(self.batches, stage.objective, max(first, self.step))
        self.feed = self._feed(self.step)
        self._compile()
        self.profiler = Profiler(workdir / "profile", config.log.profile_at, config.log.profile_steps, self.run.console)
        self.progress = RunProgress(self.last, self.step, self.run.console)

    def _feed(self, step: int) -> DevicePrefetcher:
        return DevicePrefetcher(self.batches, self.parts.sharding, step, self.config.data.workers)

    def _shapes(self) -> list[tuple]:
        return [(name, x.shape) for name, x in sorted(self.feed.ahead.items())]

    def _compile(self) -> None:
        """Compile the step ahead of its first call."""
        self.feed_shapes = self._shapes()
        console, begun = self.run.console, time.perf_counter()
        console.print("compiling the train step ...")
        with allocating("compiling the train step"):
            exact = needed(self.step_fn.lower(self.state, self.feed.ahead).compile().memory_analysis())
        seconds, memory = time.perf_counter() - begun, f"; it needs {readable(exact)} a device" if exact else ""
        console.print(f"compiled in {seconds:.1f} s{memory}", soft_wrap=True, highlight=False)
        check_exact(exact, self.run.limit)

    def __enter__(self) -> "Session":
        self.clock = Clock(self.step)
        with contextlib.ExitStack() as stack:
            parts: tuple[contextlib.AbstractContextManager, ...] = (
                contextlib.closing(self.checkpoints),
                contextlib.closing(self.metrics),
                writing(self.run.workdir),
                self.progress,
                self.profiler,
            )
            stack.callback(lambda: self.feed.close())  # another one after a rewind
            for part in parts:
                stack.enter_context(part)
            self._open = stack.pop_all()
        return self

    def __exit__(self, *error: Any) -> bool | None:
        return self._open.__exit__(*error)

    # Step

    def advance(self) -> None:
        """Dispatch one step without waiting for it."""
        if self._stage_of(self.step) != self.stage:
            self._enter()
        self.step += 1
        self.profiler.before(self.step)
        self.state, measured = self.step_fn(self.state, next(self.feed))
        self.profiler.after(self.step, measured)
        self.pending.append((self.step, measured))

    def due(self, every: int) -> bool:
        """Whether something done `every` so many steps is due after this one; 0: never."""
        return every > 0 and self.step % every == 0

    def _figures(self, reading: Any) -> Record | None:
        step, measured = self.pending[-1]
        return summary(step, measured, reading, self.cost * self.batches.rows_of(step - 1))

    # Stages

    def _stage_of(self, step: int) -> int:
        """The number of the stage of the step after `step`."""
        return max(number for number, stage in enumerate(self.stages) if stage.first <= step)

    def _boundaries(self) -> list[Record]:
        """A record for each stage that began so far, the first aside."""
        configs = self.run.parts.stage_configs
        begun = [(a.config, b) for a, b in pairwise(configs) if b.first <= self.step]
        return [stage.event(before) for before, stage in begun]

    def _marks(self) -> list[Record]:
        """All that metrics.jsonl has besides figures."""
        return [*self.events, *self.changes, *self._boundaries()]

    def _choose(self, number: int) -> bool:
        """Take the parts of a stage, and the program of its step; returns whether that is another one."""
        before, self.stage, self.parts = self.parts, number, self.stages[number].parts
        trainer = self.parts.trainer
        # Stages of one objective share a program; other lengths are other shapes of it.
        other = not self.programs or trainer != before.trainer
        if trainer not in [known for known, _ in self.programs]:
            self.programs.append((trainer, trainer.jitted(self.state)))
        self.step_fn = next(step for known, step in self.programs if known == trainer)
        lengths = lengths_of(self.batches, self.stages[number].first)
        self.flops = training_flops(self.parts.model, *lengths, self.parts.program.transforms)  # of a row
        self.cost = self.flops / peak_flops(self.config.train.dtype)[0]  # seconds a row would take at peak FLOP/s
        return other

    def _enter(self) -> None:
        """Begin the next stage: compile its step, if that has another program or other shapes."""
        number, before = self._stage_of(self.step), self.feed_shapes
        other = self._choose(number)
        event = self._boundaries()[-1]
        self.tell(
            f"step {self.step}: stage {number + 1} of {len(self.stages)} begins: {record.describe(event['changed'])}"
        )
        with writing(self.run.workdir):
            self.metrics.write(event)
        if self._shapes() != before or other:
            self._compile()
        self.clock.restart(self.step, self.feed.waited)

    # Look

    def glance(self) -> None:
        """Report a step that is not recorded, if a progress line is due."""
        if self.progress.wants():
            # Otherwise the clock would miss work still queued on the device.
            jax.block_until_ready(self.pending[-1][1])
            if seen := self._figures(self.clock.look(self.step, self.feed.waited)):
                self.progress.tell(self.step, seen)

    def recovered(self) -> bool:
        """Look for bad steps since the last call and handle them as config.train.recovery says. Returns True if the run
        was rewound to an earlier step. Raises `UserError` if it must stop."""
        rule = self.parts.trainer.recovery
        found = find_bad_steps(rule, self.pending)
        back_to = None
        if found and goes_back(rule):
            back_to = self.checkpoints.newest(found[0]["step"] - 1 - rule.back) or 0
            self.batches, found[0] = gone_back(rule, self.batches, found[0], back_to)
        for event in found:
            self.events.append(event)
            self.metrics.write(event)
            self.tell(f"[yellow]{describe(event)}[/]")
        check_limit(rule, self.events)
        if back_to is not None:
            self.rewind(back_to)
        return back_to is not None

    def rewind(self, step: int) -> None:
        """Return to the checkpoint of `step`, or to the beginning, and discard everything after it."""
        trainer, hyper = self.parts.trainer, lowered(self.parts.hyper, self.events)
        self.checkpoints.forget(after=step)
        if step:
            self.state = saved_state(self.checkpoints, step, trainer.abstract(hyper), hyper)
        else:
            self.state = new_state(trainer, hyper, self.config.train.init_from, surgery_of(self.config))
        self.feed.close()
        self.step, self.feed, self.pending = step, self._feed(step), []
        # Earlier skips also hold for the repeated steps.
        self.changes = [change | {"step": min(change["step"], step)} for change in self.changes]
        self.metrics.resume(step, self._marks())
        self._choose(self._stage_of(step))
        self.clock.restart(step, self.feed.waited)
        self.progress.back(step)

    def record(self) -> None:
        """Record and report the metrics of this step."""
        seen = self._figures(self.clock.read(self.step, self.feed.waited))
        self.pending.clear()
        if seen is None:
            return
        self.metrics.write(seen)
        self.progress.tell(self.step, seen)
        if not (seen["tokens"] or self.warned_empty):
            self.warned_empty = True
            name = type(self.parts.objective).__name__
            self.tell(f"{WARNING} step {self.step}: {name} predicts no token in its batch")

    # Save

    def save(self) -> None:
        """Start saving a checkpoint."""
        kept = {"skips": self.batches.skips, "events": self.events, "changes": self.changes}
        if len(self.stages) > 1:
            kept |= {"stages": self._boundaries()}
        save_state(self.checkpoints, self.state, self.meta | kept)
        self.clock.restart(self.step, self.feed.waited)

    def stopped(self, why: str) -> str:
        """Finish the save, and say how to continue."""
        self.checkpoints.wait()
        line = f"{why}: saved step {self.step} in {self.checkpoints.path}; run the same command to go on"
        self.tell(line)
        return line

    # Evaluate

    def evaluate(self, anew: bool = True) -> Record:
        """Figures on held-out data, recorded unless they were (`anew`). A failure here is reported and costs only
        these figures."""
        try:
            result = self._evaluated()
        except (UserError, jax.errors.JaxRuntimeError) as e:
            if jax.process_count() > 1 and not isinstance(e, UserError):
                raise  # other processes may be waiting
            self.tell(f"{WARNING} step {self.step}: no validation figures: {_line(e)}")
            return {}
        self.tell(f"step {self.step}: validation {_validation(result)}")
        if anew:
            with writing(self.run.workdir):
                self.metrics.write({"step": self.step, **{f"validation_{k}": v for k, v in result.items()}})
            self.plot()
        return result

    def _evaluated(self) -> Record:
        parts = self.stages[self._stage_of(max(self.step - 1, 0))].parts
        weights = parts.trainer.averaged(self.state)
        chosen = [of_source[: self.config.log.eval_batches or None] for of_source in parts.held_out.ranges]
        results = [parts.evaluator(weights, evaluation_batches(parts.held_out, w, parts.sharding)) for w in chosen]
        by_name = {part.name: values(r)["loss"] for part, r in zip(parts.data.parts, results, strict=True)}
        return values(added(results)) | ({"loss_of": by_name} if len(by_name) > 1 else {})

    def plot(self) -> None:
        """Draw loss.png."""
        try:
            if self.run.chief:
                plot_losses(self.metrics.path, self.run.workdir / "loss.png", f"{self.run.workdir.name}: {self.size}")
        except PLOT_ERRORS as e:
            self.tell(f"{WARNING} loss.png could not be drawn: {_line(e)}")


@contextlib.contextmanager
def writing(workdir: Path) -> Iterator[None]:
    """Report a full disk in one line."""
    try:
        yield
    except OSError as e:
        raise UserError(
            f"cannot write to {workdir}: {e.strerror}; the checkpoints are kept: make room, then run the same command"
        ) from e


def _line(e: BaseException) -> str:
    return f"{type(e).__name__ + ': ' if not isinstance(e, UserError) else ''}{' '.join(str(e).split())[:300]}"


def _trained(trainer: Trainer) -> str:
    trains = count(trainer.optimizer.spec)
    return f" ({trains:,} train)" if trainer.program.transforms else ""


def _data_line(data: Data) -> str:
    documents, dropped = (sum(getattr(p.train, n) for p in data.parts) for n in ("documents", "dropped"))
    empty = f", {dropped:,} without text left out" if dropped else ""
    sources = f" of {len(data.parts)} sources" if len(data.parts) > 1 else ""
    return (
        f"{data.tokens:,} training tokens{sources} ({documents:,} documents{empty}), "
        f"{sum(cache.size for cache in data.validation):,} for validation"
    )


def _validation(result: Record) -> str:
    bits = f", {result['bits_per_byte']:.4f} bits per byte" if "bits_per_byte" in result else ""
    if not bits and "accuracy" in result:
        bits = f", accuracy {result['accuracy']:.2%}"
    of = "".join(f"; {name} {loss:.4f}" for name, loss in result.get("loss_of", {}).items())
    return f"loss {result['loss']:.4f} nats per token{bits}{of}"
