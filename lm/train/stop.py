"""Signals that end a run early, once it is saved."""

import os
import signal
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils

TERMINATED = 128 + signal.SIGTERM  # exit status after it, as shells have it: saved, not done
NAMES = {signal.SIGTERM: "SIGTERM", signal.SIGINT: "Ctrl-C"}


class Stop:
    """Whether SIGTERM (pre-emption, a scheduler's stop) or Ctrl-C has come since this was entered.

    The second Ctrl-C does at once what the first would have done before."""

    def __enter__(self) -> "Stop":
        self._came = 0
        self._before: dict[signal.Signals, Any] = {}
        for number in NAMES:
            if signal.getsignal(number) is signal.SIG_IGN:
                continue  # started in the background by a script, which keeps the terminal's Ctrl-C from it
            try:
                self._before[number] = signal.signal(number, self._note)
            except ValueError:  # not the main thread (a notebook's executor): then there is no handler to set
                break
        return self

    def _note(self, number: int, _: Any) -> None:
        self._came = self._came or number
        if number == signal.SIGINT:
            signal.signal(number, self._before.pop(signal.SIGINT))
            # Past Python's buffers: the signal may have come amid a write to them.
            os.write(2, b"\nCtrl-C: saving when this step is done; once more stops at once\n")

    def __call__(self, together: bool) -> str:
        """The signal's name, "" for none. Several processes must answer alike, and ask one another only where all of
        them are `together`."""
        came = self._came
        if jax.process_count() > 1:
            came = int(multihost_utils.process_allgather(np.array(came)).max()) if together else 0
        return NAMES[signal.Signals(came)] if came else ""

    def __exit__(self, *_: Any) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
