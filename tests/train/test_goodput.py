"""Where a run's wall time went: the kinds add up to all of it, over restarts and whatever was in vain."""

import re
import signal
import subprocess
import sys
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lm.runs.goodput import STEPS, Account, Goodput, read_ledger
from lm.runs.metrics import read_metrics
from tests.train import tiny


class FakeClock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def stepping(folder, clock, step=0):
    """The account of a run that has just begun to take steps."""
    ledger = Goodput(folder, clock=clock)
    ledger.start(step)
    ledger.loop(step)
    return ledger


def test_a_start_from_beginning_to_end(tmp_path):
    clock = FakeClock()
    ledger = Goodput(tmp_path, clock=clock)
    clock.now += 2  # opening data
    ledger.start(0)
    with ledger.spending("compilation"):
        clock.now += 5
    clock.now += 1
    ledger.loop(0)
    clock.now += 10
    ledger.waited(1.5)
    ledger.note(10)
    with ledger.spending("checkpoints"):
        clock.now += 2
    with ledger.spending("evaluation"):
        clock.now += 3
    clock.now += 20
    ledger.waited(2.0)
    ledger.note(30, event="end")
    wanted = {"startup": 3, "compilation": 5, "input": 2, "checkpoints": 2, "evaluation": 3, STEPS: 28}
    assert {kind: s for kind, s in ledger.account.seconds.items() if s} == wanted
    assert ledger.account.total == clock.now - 1000 == 43
    shares = ledger.account.shares()
    assert shares["goodput"] == 28 / 43 and shares["badput/compilation"] == 5 / 43
    assert sum(shares.values()) == pytest.approx(1)
    assert str(ledger.account) == (
        "goodput 65.1% of 43.0 s; badput: compilation 11.6%, startup 7.0%, evaluation 7.0%, input 4.7%, "
        "checkpoints 4.7%"
    )


def test_what_is_within_is_counted_once(tmp_path):
    clock = FakeClock()
    ledger = stepping(tmp_path, clock)
    with ledger.spending("recovery"):
        clock.now += 1
        with ledger.spending("compilation"):
            clock.now += 4
        clock.now += 2
    ledger.note(1)
    assert (ledger.account.seconds["recovery"], ledger.account.seconds["compilation"]) == (3, 4)


def test_a_killed_start_costs_the_steps_since_its_checkpoint_and_the_time_until_the_next(tmp_path):
    clock = FakeClock()
    first = stepping(tmp_path, clock)
    for step in (10, 20, 30):
        clock.now += 10
        first.note(step)
    clock.now += 4  # of which nothing is known, then it is down
    clock.now += 100
    second = Goodput(tmp_path, clock=clock)
    clock.now += 6  # restores
    second.start(25)
    with second.spending("compilation"):
        clock.now += 5
    second.loop(25)
    clock.now += 10
    second.note(35)
    seconds = second.account.seconds
    assert seconds[STEPS] == 25 + 10 and seconds["compilation"] == 5
    assert seconds["restarts"] == 5 + 104 + 6, "half a stretch anew, down, restoring"
    assert second.account.total == clock.now - 1000 and second.account.starts == 2


def test_a_run_that_ended_costs_nothing_until_it_is_made_longer(tmp_path):
    clock = FakeClock()
    for steps in ((0, 10), (10, 20)):
        ledger = stepping(tmp_path, clock, steps[0])
        clock.now += 10
        ledger.note(steps[1], event="end")
        clock.now += 1e6
    assert ledger.account.shares() == {"goodput": 1.0} and ledger.account.total == 20


def test_recovery(tmp_path):
    clock = FakeClock()
    ledger = stepping(tmp_path, clock)
    clock.now += 10
    ledger.note(10, skipped=2)
    assert ledger.account.seconds["recovery"] == 2
    clock.now += 10
    ledger.note(20)
    clock.now += 5
    ledger.note(25, event="rewind", to=15)
    assert ledger.account.seconds["recovery"] == 2 + 5 + 5 and ledger.account.seconds[STEPS] == 8 + 5
    clock.now += 10
    ledger.note(25)
    assert ledger.account.seconds[STEPS] == 23 and ledger.account.total == 35


ACTS = st.lists(
    st.tuples(st.sampled_from(["steps", "rewind", "kill", "save", "end"]), st.integers(0, 30), st.floats(0, 1e4)),
    max_size=30,
)


@given(ACTS)
def test_kinds_add_up_whatever_happens(acts):
    account, now, at = Account(), 1e9, 0
    account.add({"event": "start", "time": now, "step": 0})
    off = 0.0  # time between an end and the next start
    for act, n, seconds in acts:
        now += seconds
        if act == "steps":
            at += n
            account.add({"time": now, "step": at, "seconds": {STEPS: seconds}, "skipped": n // 3})
        elif act == "save":
            account.add({"time": now, "step": at, "seconds": {"checkpoints": seconds}})
        elif act == "rewind":
            to = min(n, at)
            account.add({"time": now, "step": at, "seconds": {STEPS: seconds}, "event": "rewind", "to": to})
            at = to
        else:
            if act == "end":
                account.add({"time": now, "step": at, "seconds": {STEPS: seconds}, "event": "end"})
                now += 77.0
                off += 77.0
            at = min(n, at)
            account.add({"event": "start", "time": now, "step": at})
    assert account.total == pytest.approx(now - 1e9 - off, rel=1e-6, abs=1e-3)
    assert all(s >= -1e-6 for s in account.seconds.values())
    assert not account.shares() or sum(account.shares().values()) == pytest.approx(1)


def test_a_line_cut_short_is_passed_over(tmp_path):
    clock = FakeClock()
    first = Goodput(tmp_path, clock=clock)
    first.start(0)
    first.note(0)
    with first.path.open("a") as file:
        file.write('{"time": 1003, "st')
    second = Goodput(tmp_path, clock=clock)
    second.start(0)
    assert [line.get("event") for line in read_ledger(first.path)] == ["start", None, "start"]
    assert len(first.path.read_text().splitlines()) == 4


@pytest.mark.slow
def test_a_real_run_that_is_killed_and_goes_on(tmp_path):
    """The run of a process that ends by SIGKILL, in the midst of its steps, and the same again to its end."""
    (tmp_path / "experiment.py").write_text(
        "from pathlib import Path\nfrom tests.train import tiny\n\n\ndef get_config():\n"
        "    config = tiny.config(Path(__file__).parent)\n    config.train.steps = 12\n"
        "    config.log.update(checkpoint_every=4, eval_every=6)\n    return config\n"
    )
    kill = (
        "import os, runpy, signal; from lm.train.session import Session\nnoted = Session.record\n"
        "def record(self):\n    noted(self)\n    if self.step == 7:\n        os.kill(os.getpid(), signal.SIGKILL)\n"
        "Session.record = record\nrunpy.run_module('lm.train', run_name='__main__', alter_sys=True)\n"
    )
    (tmp_path / "killed.py").write_text(kill)
    run = tmp_path / "run"
    arguments = (f"--config={tmp_path / 'experiment.py'}", f"--workdir={run}")
    begun = time.time()
    killed = subprocess.run([sys.executable, tmp_path / "killed.py", *arguments], env=tiny.one_device())
    assert killed.returncode == -signal.SIGKILL
    before = read_ledger(run / "goodput.jsonl")
    done = subprocess.run(
        [sys.executable, "-m", "lm.train", *arguments], env=tiny.one_device(), capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    ledger = read_ledger(run / "goodput.jsonl")
    assert ledger[: len(before)] == before and ledger[-1]["event"] == "end"
    account = Account()
    for line in ledger:
        account.add(line)
    assert account.starts == 2 and account.total == pytest.approx(ledger[-1]["time"] - ledger[0]["time"], abs=1e-3)
    assert account.total < time.time() - begun
    assert {kind for kind, s in account.seconds.items() if s > 0} >= {
        STEPS, "startup", "compilation", "checkpoints", "evaluation", "restarts",
    }  # fmt: skip
    anew = sum(line["seconds"][STEPS] for line in before if line["step"] > 4)
    down = ledger[len(before)]["time"] - before[-1]["time"]
    assert account.seconds["restarts"] > anew + down
    (told,) = [line for line in done.stderr.splitlines() if line.startswith("goodput ")]
    assert re.match(r"goodput \d+\.\d% of \d+\.\d s and 2 starts; badput: ", told) and "restarts" in told
    last = [r for r in read_metrics(run / "metrics.jsonl") if "loss" in r][-1]
    assert sum(v for k, v in last.items() if k == "goodput" or k.startswith("badput/")) == pytest.approx(1, abs=1e-5)
