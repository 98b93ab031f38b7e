"""Connecting the processes of one run. They meet before JAX connects them, so that a missing one is reported.

JAX itself waits silently, and on a timeout ends the process with a C++ stack trace."""

import atexit
import contextlib
import json
import os
import re
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator

from lm.core.errors import UserError

FIRST_WORD, AGAIN = 3.0, 30.0  # seconds until the first report of missing processes, and between later ones
Tell = Callable[[str], None]
# What Gloo, by which processes on CPUs speak to each other, writes to standard output, in pieces that may interleave.
GLOO = re.compile(
    rb"(?=.*(?:Gloo|peer ranks))(?:\[Gloo\] Rank|\d+|is connected to|peer ranks\.|Expected number of connected|"
    rb"peer ranks is :|\s)+"
)


def connect(coordinator: str | None, processes: int | None, process: int | None, wait: float, tell: Tell) -> None:
    """Join this process to its run, as the flags say; without any flag, the run has a single process.

    Raises `UserError` for flags that do not go together, outside a cluster, and if some process is still missing after
    `wait` seconds."""
    check(coordinator, processes, process)
    if coordinator is None:
        return
    import jax

    without(GLOO)
    if coordinator == "auto":
        try:
            with _reminder(tell, "waiting for the other processes of this cluster ..."):
                jax.distributed.initialize(initialization_timeout=round(wait))
        except (ValueError, RuntimeError) as e:
            raise UserError(
                f"--coordinator=auto finds no cluster here ({' '.join(str(e).split())[:160]}): give "
                "--coordinator=host:port, --processes and --process, or leave all three out for a single process"
            ) from e
        return
    assert processes is not None and process is not None
    meet(coordinator, processes, process, wait, tell)
    try:
        jax.distributed.initialize(coordinator, processes, process, initialization_timeout=round(wait))
    except (ValueError, RuntimeError) as e:
        raise UserError(
            f"process {process} of {processes} cannot join at {coordinator} ({' '.join(str(e).split())[:160]}): is "
            "that port in use? Choose another"
        ) from e


def without(pattern: re.Pattern[bytes]) -> None:
    """Filter lines that match this pattern from standard output, including C++ output, until the process ends."""
    try:
        kept, (end, start) = os.dup(1), os.pipe()
        sys.stdout.flush()
        os.dup2(start, 1)
    except (OSError, ValueError):  # there is no standard output
        return
    os.close(start)

    def sift() -> None:
        with open(end, "rb") as lines, open(kept, "wb", buffering=0) as out, contextlib.suppress(OSError):
            for line in lines:
                if not pattern.fullmatch(line):
                    out.write(line)

    thread = threading.Thread(target=sift, daemon=True)
    thread.start()

    @atexit.register
    def finish() -> None:
        sys.stdout.flush()
        os.dup2(2, 1)  # the last one to hold the pipe lets go of it
        thread.join(5.0)


def check(coordinator: str | None, processes: int | None, process: int | None) -> None:
    """Raise `UserError` for flags that do not go together."""
    given = [f"--{name}={v}" for name, v in (("processes", processes), ("process", process)) if v is not None]
    if coordinator is None and given:
        raise UserError(
            f"{' '.join(given)} without --coordinator: each process would train alone; give all of them the same "
            "--coordinator=host:port, or leave these flags out"
        )
    if coordinator in (None, "auto"):
        if given:
            raise UserError(f"--coordinator=auto finds out by itself what {' '.join(given)} says: leave that out")
        return
    if processes is None or process is None:
        raise UserError(f"--coordinator={coordinator} needs --processes and --process, or give --coordinator=auto")
    if processes < 1 or not 0 <= process < processes:
        raise UserError(
            f"--process={process} is none of --processes={processes}: they are numbered 0 to {max(processes, 1) - 1}"
        )
    _address(coordinator)


def host_of(coordinator: str | None) -> str | None:
    """The host of --coordinator=host:port; None where it is not said."""
    return None if coordinator in (None, "auto") else _address(str(coordinator))[0]


def _address(coordinator: str) -> tuple[str, int]:
    host, _, port = coordinator.rpartition(":")
    if not host or not port.isdecimal() or not 0 < int(port) < 2**16:
        raise UserError(f"--coordinator={coordinator} is no host:port: write it as localhost:9911, or auto")
    return host.strip("[]"), int(port)


@contextlib.contextmanager
def _reminder(tell: Tell, line: str) -> Iterator[None]:
    timer = threading.Timer(FIRST_WORD, tell, [line])
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


def meet(coordinator: str, processes: int, process: int, wait: float, tell: Tell) -> None:
    """Return once all processes have arrived: process 0 listens at the coordinator's address, and the others connect to
    it. Missing processes are reported, and after `wait` seconds raise a `UserError`."""
    if processes == 1:
        return
    clock = _Patience(coordinator, processes, process, wait, tell)
    if process == 0:
        _gather(_address(coordinator)[1], processes, clock)
    else:
        _call(_address(coordinator), processes, process, clock)


class _Patience:
    """Reports missing processes at intervals until the deadline."""

    def __init__(self, coordinator: str, processes: int, process: int, wait: float, tell: Tell) -> None:
        self.coordinator, self.processes, self.process, self.wait, self._tell = (
            coordinator, processes, process, wait, tell,
        )  # fmt: skip
        self._start = time.monotonic()
        self._next = self._start + min(FIRST_WORD, wait / 2)

    def missing(self, who: list[int]) -> None:
        now = time.monotonic()
        if now >= self._start + self.wait:
            raise UserError(
                f"{self._names(who)} did not come to {self.coordinator} within {self.wait:g} s: start "
                f"{'it' if len(who) == 1 else 'them'} with the same --coordinator and --processes, or raise --wait"
            )
        if now >= self._next:
            self._next = now + AGAIN
            self._tell(f"waiting for {self._names(who)} at {self.coordinator} (up to {self.wait:g} s) ...")

    def _names(self, who: list[int]) -> str:
        shown = ", ".join(map(str, who[:8])) + (" ..." if len(who) > 8 else "")
        return f"process{'es' if len(who) > 1 else ''} {shown} of {self.processes}"


def _gather(port: int, processes: int, clock: _Patience) -> None:
    here: dict[int, socket.socket] = {}
    try:
        family = socket.AF_INET6 if socket.has_dualstack_ipv6() else socket.AF_INET
        server = socket.create_server(("", port), family=family, dualstack_ipv6=family == socket.AF_INET6)
    except OSError as e:
        raise UserError(
            f"--coordinator={clock.coordinator}: cannot listen at port {port} ({e.strerror}): choose another port"
        ) from e
    with server, contextlib.ExitStack() as open_sockets:
        server.settimeout(0.5)
        while len(here) < processes - 1:
            try:
                clock.missing([i for i in range(1, processes) if i not in here])
            except UserError as e:
                for caller in here.values():
                    _write(caller, {"error": str(e)})
                raise
            try:
                caller, _ = server.accept()
            except TimeoutError:
                continue
            open_sockets.enter_context(caller)
            said = _read(caller)
            wrong = _wrong(said, processes, here)
            if wrong:
                _write(caller, {"error": wrong})
                if said is not None:  # not whoever else looks in at a port
                    raise UserError(wrong)
                continue
            assert said is not None
            here[said["process"]] = caller
        for caller in here.values():
            _write(caller, {"go": True})
        for caller in here.values():  # they hang up first, so that the port is free at once
            _read(caller)


def _wrong(said: dict | None, processes: int, here: dict[int, socket.socket]) -> str:
    if said is None or said.keys() != {"process", "processes"}:
        return "that was no process of this run"
    if said["processes"] != processes:
        return f"process {said['process']} has --processes={said['processes']}, and process 0 {processes}: make it one"
    if said["process"] in here:
        return f"two processes have --process={said['process']}: give each a number of its own"
    return ""


def _call(address: tuple[str, int], processes: int, process: int, clock: _Patience) -> None:
    while True:
        clock.missing([0])
        try:
            with socket.create_connection(address, timeout=1.0) as first:
                _write(first, {"process": process, "processes": processes})
                first.settimeout(clock.wait + 5)  # the first process knows who is missing, and tells it
                said = _read(first)
        except socket.gaierror as e:
            raise UserError(f"--coordinator: no host {address[0]!r} ({e.strerror}): give its name or address") from e
        except OSError:  # not there yet
            time.sleep(0.2)
            continue
        if said and "error" in said:
            raise UserError(said["error"])
        if said and said.get("go"):
            return
        time.sleep(0.2)  # it ended: it may be started again


def _read(s: socket.socket) -> dict | None:
    """A line of JSON; None where there is none."""
    if s.gettimeout() is None:
        s.settimeout(5.0)
    try:
        said = json.loads(s.makefile().readline(1000) or "null")
    except (OSError, ValueError):
        return None
    return said if isinstance(said, dict) else None


def _write(s: socket.socket, said: dict) -> None:
    with contextlib.suppress(OSError):
        s.sendall(json.dumps(said).encode() + b"\n")
