"""Noticing that a process of the run is gone: each ends when another does, in one line and with a status that says so.

Left alone, JAX lets a collective hang for as long as its heartbeats allow (100 s), or ends the process with a C++ stack
trace. Here process 0 keeps a connection to each other process: the system closes it when one of them dies, and a
machine that dies without a word stops answering. The others then leave at once, with status `LOST`, and whoever started
them may start them again, as many as there are then."""

import contextlib
import ctypes
import os
import secrets
import selectors
import signal
import socket
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from typing import Any, NoReturn

import jax
import numpy as np
from jax.experimental import multihost_utils

from lm.core.errors import main_errors

LOST = 75  # exit status: EX_TEMPFAIL of sysexits.h, by which mailers and launchers know that it is worth trying again
BEAT, SILENCE = 2.0, 60.0  # seconds between signs of life, and without any until a process counts as lost
GRACE = 10.0  # seconds: to connect, and for the word of who is lost to come after an error that it may explain
Tell = Callable[[str], None]


@contextlib.contextmanager
def watched(host: str | None, tell: Tell) -> Iterator[None]:
    """While this is open, the loss of another process ends this one. Whatever else ends it, by an exception, ends the
    others too, with the same status.

    host: by which the others reach process 0; None: by the address that it has on its network."""
    if jax.process_count() == 1:
        yield
        return
    watch = _meet(host, tell)
    _catch_abort()
    try:
        yield
    except BaseException as e:
        if isinstance(e, (KeyboardInterrupt, SystemExit)):  # all of them agreed to stop
            watch.close("bye")
            raise
        # A collective, or a save together, breaks as soon as a connection does: `Watch` knows why, and leaves.
        time.sleep(GRACE if isinstance(e, jax.errors.JaxRuntimeError) else 1.0)
        _end_with(watch)
    watch.close("bye")


def _meet(host: str | None, tell: Tell) -> "Watch":
    watch = Watch(jax.process_index(), jax.process_count(), tell)
    port = watch.serve() if watch.process == 0 else 0
    mine = np.array([*map(int, _own_address().split(".")), port, secrets.randbits(31)], np.int32)
    *address, port, token = multihost_utils.broadcast_one_to_all(mine).tolist()
    watch.begin(token, None if watch.process == 0 else (host or ".".join(map(str, address)), port))
    return watch


def _end_with(watch: "Watch") -> NoReturn:
    """End with the status of the exception being handled, not by `sys.exit`: JAX would wait for the other processes."""
    status = 1
    try:
        with main_errors():
            raise
    except SystemExit as e:
        status = e.code if isinstance(e.code, int) else 1
    except BaseException:  # a programming error
        traceback.print_exc()
    watch.close(f"failed {watch.process} {status}")
    _leave(status)


def _leave(status: int) -> NoReturn:
    with contextlib.suppress(OSError, ValueError):
        sys.stdout.flush()
        sys.stderr.flush()
    os._exit(status)


class Watch:
    """Connections between process 0 and each other one, and a thread that listens to them.

    Words are lines: `.` (alive), `bye` (done), `failed NUMBER STATUS` (of itself) and `lost NUMBER`, both of which
    process 0 passes on; each connection begins with `TOKEN NUMBER`. `leave`: what ends the process with a status."""

    def __init__(self, process: int, count: int, tell: Tell, leave: Callable[[int], None] = _leave) -> None:
        self.process, self.count, self.tell, self.leave = process, count, tell, leave
        self._heard: dict[int, float] = {}  # when each other one was last heard of
        self._links: dict[int, socket.socket] = {}
        self._selector = selectors.DefaultSelector()
        self._lock, self._closed = threading.Lock(), False
        self._all_here = threading.Event()

    def serve(self) -> int:
        """Open a port for the others, and return its number."""
        both = socket.has_dualstack_ipv6()
        server = socket.create_server(("", 0), family=socket.AF_INET6 if both else socket.AF_INET, dualstack_ipv6=both)
        self._selector.register(server, selectors.EVENT_READ, None)
        return server.getsockname()[1]

    def begin(self, token: int, address: tuple[str, int] | None) -> None:
        """Connect to process 0 at its `address` or, as process 0, wait for the others; and begin to listen."""
        self._token = token
        if address is not None:
            try:
                self._add(0, socket.create_connection(address, timeout=GRACE))
            except OSError as e:
                self.tell(
                    f"process {self.process} cannot reach process 0 at {address[0]}:{address[1]} ({e}): if another one "
                    "is lost, it is noticed by JAX alone, after minutes"
                )
                return
            self._say_all(f"{token} {self.process}")
        threading.Thread(target=self._listen, name="heartbeat", daemon=True).start()
        if address is None:
            self._all_here.wait(GRACE)  # those that cannot reach this one say so

    def _add(self, number: int, link: socket.socket) -> None:
        link.settimeout(GRACE)
        self._links[number], self._heard[number] = link, time.monotonic()
        self._selector.register(link, selectors.EVENT_READ, number)

    def _say_all(self, word: str) -> None:
        for link in self._links.values():
            with contextlib.suppress(OSError):  # if it is gone, the next look tells
                link.sendall(f"{word}\n".encode())

    def _listen(self) -> None:
        beaten = 0.0
        while True:
            ready = [key for key, _ in self._selector.select(BEAT / 2)]
            with self._lock:
                for key in ready:
                    self._hear(key.data) if key.data is not None else self._accept(key.fileobj)
                now = time.monotonic()
                for number, heard in list(self._heard.items()):
                    if now - heard > SILENCE:
                        self._lost(number, f"no sign of life for {SILENCE:g} s")
                if now - beaten >= BEAT:
                    beaten = now
                    self._say_all(".")
                if self._closed:
                    return

    def _accept(self, server: Any) -> None:
        link, _ = server.accept()
        link.settimeout(GRACE)
        greeting = b""
        try:
            while not greeting.endswith(b"\n") and len(greeting) < 50:
                greeting += link.recv(1) or b"\n"  # what follows is for `_hear`
            token, number = map(int, greeting.split())
        except (OSError, ValueError):
            token = number = -1
        if token == self._token and 0 < number < self.count and number not in self._links:
            self._add(number, link)
            if len(self._links) == self.count - 1:
                self._all_here.set()
        else:
            link.close()  # whoever else looks in at a port

    def _hear(self, number: int) -> None:
        if self._closed:
            return
        try:
            words = self._links[number].recv(4096).decode(errors="replace").splitlines()
        except OSError:
            words = []
        self._heard[number] = time.monotonic()
        if not words:
            self._lost(number, "its connection closed")
        for word in words:
            what, *values = word.split()
            if what == "bye":
                self._selector.unregister(self._links.pop(number))
                del self._heard[number]
            elif what == "failed":
                who, status = map(int, values)
                self._end(word, f"error: process {who} of {self.count} ended by an error, which it tells", status)
            elif what == "lost":
                self._lost(int(values[0]), "process 0 says so")

    def _lost(self, number: int, how: str) -> None:
        line = (
            f"error: process {number} of {self.count} is lost ({how}): start the run again, with as many processes as "
            f"there are; it goes on from its last checkpoint (exit status {LOST})"
        )
        self._end(f"lost {number}", line, LOST)

    def _end(self, word: str, line: str, status: int) -> None:
        """Tell the others, then whoever reads standard error, and leave."""
        if self._closed:
            return
        self._closed = True
        self._say_all(word)
        self.tell(line)
        self.leave(status)

    def close(self, word: str) -> None:
        """Say goodbye, or what went wrong."""
        with self._lock:
            self._closed = True
            self._say_all(word)
            for link in self._links.values():
                link.close()


def _own_address() -> str:
    """The address that this machine has on its network."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as s, contextlib.suppress(OSError):
        s.connect(("192.0.2.1", 9))  # reserved for documentation: it only chooses an interface, and sends nothing
        return s.getsockname()[0]
    return "127.0.0.1"


def _catch_abort() -> None:
    """JAX aborts from a thread of its own as soon as the coordinator is gone: give `Watch` the time to say so first.
    An abort for another reason takes place."""
    if os.name != "posix":
        return
    c = ctypes.CDLL(None)

    @ctypes.CFUNCTYPE(None, ctypes.c_int)
    def wait(number: int) -> None:
        time.sleep(GRACE)
        c.signal(number, ctypes.c_void_p(signal.SIG_DFL))

    _catch_abort.kept = wait  # type: ignore[attr-defined]  # C holds no reference
    c.signal(signal.SIGABRT, wait)
