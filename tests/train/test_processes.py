"""Processes of one run: they meet, and who is missing, or wrong, is told in a line."""

import os
import re
import signal
import socket
import subprocess
import sys
import threading

import pytest

from lm.core.errors import UserError
from lm.train import processes
from tests.train import tiny


def port() -> int:
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


@pytest.mark.parametrize(
    ("coordinator", "count", "process", "pattern"),
    [
        (None, 2, 0, r"--processes=2 --process=0 without --coordinator: each process would train alone"),
        (None, None, 1, r"--process=1 without --coordinator"),
        ("localhost:9911", 2, None, r"needs --processes and --process"),
        ("localhost:9911", 2, 5, r"--process=5 is none of --processes=2: they are numbered 0 to 1"),
        ("localhost:9911", 0, 0, r"--process=0 is none of --processes=0"),
        ("localhost", 2, 0, r"--coordinator=localhost is no host:port"),
        ("localhost:port", 2, 0, r"--coordinator=localhost:port is no host:port"),
        ("auto", 2, 0, r"--coordinator=auto finds out by itself what --processes=2 --process=0 says"),
    ],
)
def test_flags_that_do_not_go_together(coordinator, count, process, pattern):
    with pytest.raises(UserError, match=pattern):
        processes.check(coordinator, count, process)


def test_a_run_of_one_process_needs_no_flags():
    processes.connect(None, None, None, 1.0, print)


def together(count: int, *numbers: tuple[int, int], wait: float = 20.0) -> list[str]:
    """What becomes of these (process, its number of processes), in threads: "" or an error."""
    at, found = f"localhost:{port()}", [""] * len(numbers)

    def one(i: int) -> None:
        try:
            processes.meet(at, numbers[i][1], numbers[i][0], wait, lambda line: None)
        except UserError as e:
            found[i] = str(e)

    threads = [threading.Thread(target=one, args=(i,)) for i in range(len(numbers))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    return found


def test_they_go_on_once_all_are_here():
    assert together(3, (2, 3), (0, 3), (1, 3)) == ["", "", ""]


@pytest.mark.parametrize("process, missing", [(0, 1), (1, 0)])
def test_one_that_is_missing(process, missing):
    lines: list[str] = []
    at = f"localhost:{port()}"
    with pytest.raises(UserError, match=rf"^process {missing} of 2 did not come to {at} within 1 s: start it"):
        processes.meet(at, 2, process, 1.0, lines.append)
    assert lines == [f"waiting for process {missing} of 2 at {at} (up to 1 s) ..."]


def test_two_of_one_number_or_another_count():
    assert any("two processes have --process=1" in heard for heard in together(3, (0, 3), (1, 3), (1, 3), wait=2.0))
    assert all(
        "process 1 has --processes=3, and process 0 2" in heard for heard in together(2, (0, 2), (1, 3), wait=2.0)
    )


def test_a_port_in_use():
    with (
        socket.create_server(("", 0)) as other,
        pytest.raises(UserError, match=r"cannot listen at port \d+ \(.*in use"),
    ):
        processes.meet(f"localhost:{other.getsockname()[1]}", 2, 0, 1.0, print)


@pytest.mark.parametrize(
    ("line", "noise"),
    [
        (b"[Gloo] Rank 0 is connected to 1 peer ranks. Expected number of connected peer ranks is : 1\n", True),
        (b"[Gloo] Rank [Gloo] Rank 1 is connected to 3 peer ranks. \n", True),
        (b"Expected number of connected peer ranks is : 3\n", True),
        (b"[Gloo] Rank 1 lost its connection\n", False),
        (b"3\n", False),
    ],
)
def test_noise_of_libraries(line, noise):
    assert bool(processes.GLOO.fullmatch(line)) == noise


def test_standard_output_is_sifted():
    program = (
        "import os, re, sys; from lm.train.processes import without; without(re.compile(b'noise.*\\n'))\n"
        "print('one'); sys.stdout.flush(); os.write(1, b'noise 1\\ntwo\\n'); print('three')"
    )
    done = subprocess.run([sys.executable, "-c", program], env=tiny.one_device(), capture_output=True, text=True)
    assert (done.stdout, done.stderr) == ("one\ntwo\nthree\n", "")


@pytest.mark.parametrize(
    ("environment", "flags", "pattern"),
    [
        ({"JAX_PLATFORMS": "cuda"}, (), r"JAX finds no device for JAX_PLATFORMS=cuda"),
        ({}, ("--coordinator=auto",), r"--coordinator=auto finds no cluster here"),
    ],
)
def test_the_command_says_it_in_one_line(tmp_path, environment, flags, pattern):
    experiment = tmp_path / "experiment.py"
    experiment.write_text("from lm.train.config import default as get_config\n")
    command = [sys.executable, "-m", "lm.train", f"--config={experiment}", f"--workdir={tmp_path / 'run'}", *flags]
    model = ("--config.model.family=gpt2", "--config.model.size=small")
    done = subprocess.run([*command, *model], env=tiny.one_device() | environment, capture_output=True, text=True)
    (line,) = [line for line in done.stderr.splitlines() if "error" in line.lower() or "Traceback" in line]
    assert done.returncode == 2 and re.match(f"error: .*{pattern}", line), done.stderr
    assert len(done.stderr.splitlines()) <= 3


def test_signals_that_a_script_keeps_from_us(monkeypatch):
    """A run in the background of a script does not see its terminal's Ctrl-C."""
    from lm.train.stop import Stop

    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with Stop() as stop:
            os.kill(os.getpid(), signal.SIGINT)
            assert stop(together=True) == "" and signal.getsignal(signal.SIGINT) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGINT, before)


def test_the_second_ctrl_c(monkeypatch):
    from lm.train.stop import Stop

    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with Stop() as stop:
            assert stop(together=True) == ""
            os.kill(os.getpid(), signal.SIGINT)
            assert stop(together=True) == "Ctrl-C"
            with pytest.raises(KeyboardInterrupt):
                os.kill(os.getpid(), signal.SIGINT)
                signal.pause()
    finally:
        signal.signal(signal.SIGINT, before)
