"""The state of a training run, and what its loop does every so often: record, recover, save, evaluate."""

import contextlib
import dataclasses
import time
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import jax

from lm.core.errors import UserError
from lm.core.param import count
from lm.data.streams import VERSIONS
from lm.inspect.cost import training_flops
from lm.objectives.objective import unit_of
from lm.runs.checkpoint import Checkpoints, meta_of
from lm.runs.metrics import MetricsLog
from lm.train import record
from lm.train.config import section
from lm.train.data import check_predicts, lengths_of
from lm.train.figures import Clock, Record, summary
from lm.train.footprint import allocating, check_exact, needed, readable
from lm.train.hardware import peak_flops
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
from lm.train.lines import data_line, of_error, pipeline_line, trained_line, validation_line
from lm.train.origin import surgery_of
from lm.train.prefetch import DevicePrefetcher
from lm.train.prepared import WARNING, Prepared
from lm.train.profile import Profiler
from lm.train.progress import RunProgress
from lm.train.resume import local_copies, new_state, resume_or_start
from lm.train.state import leaves_of, save_state, saved_state
from lm.train.step import Trainer
from lm.train.validation import plot, validated


class Session:
    """A run in progress: its state, next batch, checkpoints and records. Leaving its `with` block, for whatever reason,
    finishes a pending save."""

    def __init__(self, run: Prepared) -> None:
        """Start at step 0, or at the latest checkpoint."""
        self.run, self.parts, self.config, self.tell = run, run.parts, run.config, run.tell
        self.goodput = run.goodput
        parts, data, program = run.parts, run.parts.data, run.parts.program
        self.checkpoints = Checkpoints(run.workdir, keep=run.config.log.keep)
        with writing(run.workdir):
            warn = lambda line: run.tell(f"{WARNING} {line}")  # noqa: E731
            self.copies = local_copies(section(run.config, "log"), run.workdir, run.chief, warn)
        wording = run.text and run.text.saved()
        self.meta = meta_of(run.config, parts.model, data.tokenizer, parts.digest, wording, program.transforms)
        self.state, self.saved = resume_or_start(
            parts.trainer, parts.hyper, self.checkpoints, self.meta, surgery_of(run.config), self.copies
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
        self.left_out = 0  # updates, since the account was last written

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
            self.goodput.start(self.step)
        if aside is not None:
            self.tell(f"the config of an earlier start, of which nothing was saved, is now {aside}")
        self._choose(self._stage_of(self.step))
        flops, (peak, peak_from) = self.flops, peak_flops(config.train.dtype)
        with_changes = f" with {record.describe(self.changed)}" if self.changed else ""
        self.tell(
            f"{self.size}{trained_line(parts.trainer)}, {flops:.3g} FLOPs a row; {data_line(parts.data)}; "
            f"{jax.device_count()} {jax.devices()[0].device_kind} device(s), peak {peak / 1e9:,.0f} GFLOP/s "
            f"({peak_from}){pipeline_line(parts.trainer)}"
            + (f"; resumed at step {self.step}{with_changes}" if self.step or self.changed else "")
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
        return DevicePrefetcher(self.batches, self.parts.sharding, step, self.config.data.workers, self._busy)

    def _busy(self) -> bool:
        """Whether the devices have not finished the last step dispatched."""
        return bool(self.pending) and not all(x.is_ready() for x in jax.tree.leaves(self.pending[-1][1]))

    def _shapes(self) -> list[tuple]:
        return [(name, x.shape) for name, x in sorted(self.feed.ahead.items())]

    def _compile(self) -> None:
        """Compile the step ahead of its first call."""
        self.feed_shapes = self._shapes()
        console, begun = self.run.console, time.perf_counter()
        console.print("compiling the train step ...")
        with allocating("compiling the train step"), self.goodput.spending("compilation"):
            exact = needed(self.step_fn.lower(self.state, self.feed.ahead).compile().memory_analysis())
        seconds, memory = time.perf_counter() - begun, f"; it needs {readable(exact)} a device" if exact else ""
        console.print(f"compiled in {seconds:.1f} s{memory}", soft_wrap=True, highlight=False)
        check_exact(exact, self.run.limit)

    def __enter__(self) -> "Session":
        self.clock = Clock(self.step)
        with writing(self.run.workdir):
            self.goodput.loop(self.step)
        with contextlib.ExitStack() as stack:
            parts: tuple[contextlib.AbstractContextManager, ...] = (
                contextlib.closing(self.copies) if self.copies else contextlib.nullcontext(),
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
        self.left_out += sum(event["event"] == "skip" for event in found)
        for event in found:
            self.events.append(event)
            self.metrics.write(event)
            self.tell(f"[yellow]{describe(event)}[/]")
        check_limit(rule, self.events)
        if back_to is not None:
            self._note(event="rewind", to=back_to)
            with self.goodput.spending("recovery"):
                self.rewind(back_to)
        return back_to is not None

    def rewind(self, step: int) -> None:
        """Return to the checkpoint of `step`, or to the beginning, and discard everything after it."""
        trainer, hyper = self.parts.trainer, lowered(self.parts.hyper, self.events)
        self.checkpoints.forget(after=step)
        if self.copies:
            self.copies.forget(after=step)
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
        self._note()
        if seen is None:
            return
        self.metrics.write(seen | self.goodput.account.shares())
        self.progress.tell(self.step, seen)
        if not (seen["tokens"] or self.warned_empty):
            self.warned_empty = True
            name = type(self.parts.objective).__name__
            self.tell(f"{WARNING} step {self.step}: {name} predicts no token in its batch")

    def _note(self, **event: Any) -> None:
        """Account for the time since the last note."""
        self.goodput.waited(self.feed.waited)
        self.goodput.note(self.step, **event, **{"skipped": self.left_out} if self.left_out else {})
        self.left_out = 0

    # Save

    def save(self) -> None:
        """Start saving a checkpoint."""
        with self.goodput.spending("checkpoints"):
            save_state(self.checkpoints, self.state, self._meta())
        self.clock.restart(self.step, self.feed.waited)

    def copy(self) -> None:
        """Start making a local copy."""
        assert self.copies is not None
        with self.goodput.spending("checkpoints"):
            self.copies.write(self.step, leaves_of(self.state), self._meta())
        self.clock.restart(self.step, self.feed.waited)

    def _meta(self) -> dict:
        kept = {"skips": self.batches.skips, "events": self.events, "changes": self.changes}
        if len(self.stages) > 1:
            kept |= {"stages": self._boundaries()}
        return self.meta | kept

    def stopped(self, why: str) -> str:
        """Finish the save, and say how to continue."""
        self.finish(asked=why == "Ctrl-C")
        line = f"{why}: saved step {self.step} in {self.checkpoints.path}; run the same command to go on"
        self.tell(line)
        return line

    def finish(self, asked: bool = True) -> None:
        """Finish the save, and tell where the time went. `asked`: nothing is lost until the run goes on, if it does."""
        with self.goodput.spending("checkpoints"):
            self.checkpoints.wait()
            if self.copies and self.step == self.last:
                self.copies.forget(after=-1)  # of a run that is finished there is nothing to lose
        self._note(**{"event": "end"} if asked else {})
        self.tell(str(self.goodput.account))

    # Evaluate

    def evaluate(self, anew: bool = True) -> Record:
        """Figures on held-out data, recorded unless they were (`anew`). A failure here is reported and costs only
        these figures."""
        with self.goodput.spending("evaluation"):
            try:
                parts = self.stages[self._stage_of(max(self.step - 1, 0))].parts
                result = validated(parts, self.state, self.config.log.eval_batches)
            except (UserError, jax.errors.JaxRuntimeError) as e:
                if jax.process_count() > 1 and not isinstance(e, UserError):
                    raise  # other processes may be waiting
                self.tell(f"{WARNING} step {self.step}: no validation figures: {of_error(e)}")
                return {}
            self.tell(f"step {self.step}: validation {validation_line(result, unit_of(self.parts.objective))}")
            if anew:
                with writing(self.run.workdir):
                    self.metrics.write({"step": self.step, **{f"validation_{k}": v for k, v in result.items()}})
                if self.run.chief:
                    title = f"{self.run.workdir.name}: {self.size}"
                    plot(self.parts, self.metrics.path, title, lambda line: self.tell(f"{WARNING} {line}"))
        return result


@contextlib.contextmanager
def writing(workdir: Path) -> Iterator[None]:
    """Report a full disk in one line."""
    try:
        yield
    except OSError as e:
        raise UserError(
            f"cannot write to {workdir}: {e.strerror}; the checkpoints are kept: make room, then run the same command"
        ) from e
