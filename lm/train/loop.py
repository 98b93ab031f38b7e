"""The training loop: batch k, step, record, checkpoint."""

import contextlib
from pathlib import Path

import jax
from ml_collections.config_dict import ConfigDict
from rich.console import Console

from lm.core.errors import UserError
from lm.runs import lock
from lm.train import record
from lm.train.config import check
from lm.train.figures import Record
from lm.train.footprint import allocating
from lm.train.prepared import Prepared
from lm.train.progress import console_of
from lm.train.session import Session
from lm.train.stop import TERMINATED, Stop


def train(config: ConfigDict, workdir: str | Path, console: Console | None = None) -> Record:
    """Train as `config` says, in `workdir`, resuming from its latest checkpoint. Returns the last evaluation's metrics.

    Writes config.json, metrics.jsonl, loss.png, with experts routers.png, and checkpoints/. SIGTERM saves a checkpoint
    and raises `SystemExit`, Ctrl-C saves one and raises `KeyboardInterrupt`; SIGUSR1 traces a few steps. Of several
    processes (`jax.distributed`) only the first writes and reports."""
    check(config)
    record.plain(config)  # raises now, not at the first checkpoint, if something cannot be saved
    chief = jax.process_index() == 0
    console = (console or console_of(chief)) if chief else console_of(chief)
    workdir = Path(workdir).expanduser()
    with allocating("training"):
        run = Prepared(config, workdir, console, chief)
        try:
            workdir.mkdir(parents=True, exist_ok=True)
        except OSError as e:
            raise UserError(f"cannot make the folder {workdir}: {e.strerror}; choose another --workdir") from e
        with lock.alone(workdir) if chief else contextlib.nullcontext():
            return _train(run)


def _train(run: Prepared) -> Record:
    session, log, result = Session(run), run.config.log, Record()

    # Begin

    if session.step >= session.last:
        return session.nothing_to_do()
    session.begin()
    if session.step and session.due(log.eval_every) and not session.metrics.evaluated(session.step):
        result = session.evaluate()  # the run was killed between its last save and the evaluation

    # Signals do not interrupt what follows the loop.
    with Stop() as stop_asked, session:
        while session.step < session.last:
            # Step

            session.advance()
            at_end = session.step == session.last

            # Look (only at some steps, because reading metrics waits for the device)

            first, evaluate = session.step == session.begun + 1, session.due(log.eval_every) or at_end
            look = session.due(log.every) or first or evaluate
            stop = stop_asked(look)
            save = bool(stop) or session.due(log.checkpoint_every) or at_end
            copy = not save and session.due(log.local_checkpoint_every)
            if not (look or save or copy):
                session.glance()
                continue
            if session.recovered():
                continue  # from the step it returned to
            session.record()

            # Save

            if save:
                session.save()
            if copy:
                session.copy()
            if stop:
                line = session.stopped(stop)
                if stop == "Ctrl-C":
                    raise KeyboardInterrupt(line)
                raise SystemExit(TERMINATED)

            # Evaluate

            if evaluate:
                result = session.evaluate()
                session.clock.restart(session.step, session.feed.waited)
        session.finish()
    return result
