"""A process that is lost ends the others, in one line and with a status that says to start again."""

import contextlib
import signal
import socket
import subprocess
import sys
import threading
import time

import pytest

from lm.train import heartbeat
from lm.train.heartbeat import LOST, Watch
from tests.train import tiny


class Left:
    """What became of a process that is played by a thread here."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self.status: int | None = None
        self.left = threading.Event()

    def leave(self, status: int) -> None:
        self.status = status
        self.left.set()


@contextlib.contextmanager
def three():
    """Three processes that watch each other."""
    ends = [Left() for _ in range(3)]
    watches = [Watch(i, 3, end.lines.append, end.leave) for i, end in enumerate(ends)]
    port = watches[0].serve()
    for i in (1, 2, 0):
        watches[i].begin(1234, ("127.0.0.1", port) if i else None)
    assert len(watches[0]._links) == 2
    yield watches, ends
    for watch in watches:
        watch.close("bye")


@pytest.mark.parametrize("gone", [0, 1])
def test_the_others_leave_when_one_dies(gone):
    with three() as (watches, ends):
        with watches[gone]._lock:
            watches[gone]._closed = True
            for link in watches[gone]._links.values():
                link.shutdown(socket.SHUT_RDWR)  # as the system does for one that is killed
        for i, end in enumerate(ends):
            if i != gone:
                assert end.left.wait(20) and end.status == LOST
                (line,) = end.lines
                assert line.startswith(f"error: process {gone} of 3 is lost (") and "start the run again" in line


def test_one_that_says_nothing_is_lost(monkeypatch):
    """A machine that dies closes no connection."""
    monkeypatch.setattr(heartbeat, "BEAT", 0.1)
    monkeypatch.setattr(heartbeat, "SILENCE", 1.0)
    with three() as (watches, ends):
        watches[1]._lock.acquire()  # hangs
        for i in (0, 2):
            assert ends[i].left.wait(20) and ends[i].status == LOST
        assert "process 1 of 3 is lost (no sign of life for 1 s)" in ends[0].lines[0]
        watches[1]._lock.release()


@pytest.mark.parametrize("failed", [0, 2])
def test_an_error_of_its_own_ends_the_others_with_its_status(failed):
    with three() as (watches, ends):
        watches[failed].close(f"failed {failed} 2")
        for i in {0, 1, 2} - {failed}:
            assert ends[i].left.wait(20) and ends[i].status == 2
            assert ends[i].lines == [f"error: process {failed} of 3 ended by an error, which it tells"]


def test_an_error_at_once_is_heard():
    """A process may fail as soon as it is connected."""
    ends = [Left() for _ in range(2)]
    watches = [Watch(i, 2, end.lines.append, end.leave) for i, end in enumerate(ends)]
    port = watches[0].serve()
    watches[1].begin(1234, ("127.0.0.1", port))
    watches[1].close("failed 1 2")
    watches[0].begin(1234, None)
    assert ends[0].left.wait(20) and ends[0].status == 2
    watches[0].close("bye")


def test_who_is_done_is_not_lost(monkeypatch):
    monkeypatch.setattr(heartbeat, "BEAT", 0.1)
    with three() as (watches, ends):
        watches[1].close("bye")
        time.sleep(0.5)
        watches[0].close("bye")
        time.sleep(0.5)
        assert [end.status for end in ends] == [None] * 3


def test_strangers_are_sent_away(monkeypatch):
    monkeypatch.setattr(heartbeat, "GRACE", 0.5)
    watch = Watch(0, 2, print)
    port = watch.serve()
    watch.begin(1234, None)  # waits for process 1, which does not come
    for greeting in (b"GET / HTTP/1.1\n", b"99 1\n", b"1234 7\n"):
        with socket.create_connection(("127.0.0.1", port)) as stranger:
            stranger.sendall(greeting)
            stranger.settimeout(20)
            with contextlib.suppress(ConnectionResetError):
                assert stranger.recv(10) == b""
    assert not watch._links
    watch.close("bye")


def test_one_that_cannot_be_reached(monkeypatch):
    monkeypatch.setattr(heartbeat, "GRACE", 0.5)
    lines: list[str] = []
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        Watch(1, 2, lines.append).begin(1234, ("127.0.0.1", s.getsockname()[1]))
    assert lines[0].startswith("process 1 cannot reach process 0 at 127.0.0.1:")


PROCESS = """
import os, signal, sys, time
from lm.core.errors import UserError
from lm.train import heartbeat, processes

number, what, at = int(sys.argv[1]), sys.argv[2], sys.argv[3]
tell = lambda line: print(line, file=sys.stderr)
processes.connect(at, 2, number, 60.0, tell)
with heartbeat.watched(None if what == "end" else processes.host_of(at), tell):  # None, as on a cluster
    if number == 1:
        from jax.experimental import multihost_utils
        time.sleep(60 if what in ("abort", "die", "fail") else 1)
        if what not in ("end", "stop"):
            sys.exit("still here")
    elif what == "die":
        os.kill(os.getpid(), signal.SIGKILL)
    elif what == "abort":  # as JAX does, in a thread of its own
        os.abort()
    elif what == "fail":
        raise UserError("the disk is full")
    if what == "stop":  # as after SIGTERM, process 0 being the first to be done
        sys.exit(143)
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    ("what", "statuses", "line"),
    [
        ("die", (-signal.SIGKILL, LOST), "process 0 of 2 is lost"),
        ("abort", (-signal.SIGABRT, LOST), "process 0 of 2 is lost"),
        ("fail", (2, 2), "process 0 of 2 ended by an error"),
        ("end", (0, 0), ""),
        ("stop", (143, 143), ""),
    ],
)
def test_statuses_of_real_processes(tmp_path, what, statuses, line):
    """Process 0 is also JAX's coordinator, whose end aborts the others where nothing is faster."""
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        at = f"127.0.0.1:{s.getsockname()[1]}"
    both = [
        subprocess.Popen(
            [sys.executable, "-c", PROCESS, str(i), what, at], env=tiny.one_device(), stderr=subprocess.PIPE, text=True
        )
        for i in range(2)
    ]
    said = [process.communicate(timeout=120)[1] for process in both]
    assert tuple(process.returncode for process in both) == statuses, said
    assert line in said[1] and "cannot reach" not in said[1]


def test_an_abort_waits_for_the_word(tmp_path):
    """JAX may abort before the connection tells why."""
    program = (
        "import os, threading, time; from lm.train import heartbeat\n"
        "heartbeat._catch_abort(); threading.Timer(0.5, heartbeat._leave, [75]).start(); os.abort()"
    )
    assert subprocess.run([sys.executable, "-c", program], env=tiny.one_device()).returncode == LOST
    program = "import os; from lm.train import heartbeat; heartbeat.GRACE = 0.1; heartbeat._catch_abort(); os.abort()"
    assert subprocess.run([sys.executable, "-c", program], env=tiny.one_device()).returncode == -signal.SIGABRT
