"""Errors a person can act on: one line that names the thing, the value and the remedy."""

import contextlib
import difflib
import os
import sys
import traceback
from collections.abc import Container, Iterable, Iterator


class UserError(ValueError):
    """Bad input (a path, a knob, a mesh, a checkpoint ...). The message is one line and ends in the remedy."""


NEAR = 0.7  # share of letters in common, in order; "jamba" and "mbart" have 0.6


def nearest(name: str, known: Iterable[str], others: Container[str] = ()) -> str:
    """`; did you mean 'x'?` for the known name closest to `name`, where one is near enough to be what was meant; else
    the list of known names. `others` are names of other things, which are no slips however near they are."""
    known = sorted(known)
    close = "" if name in others else max(known, key=lambda k: (_alike(k, name), k), default="")
    if close and (_alike(close, name) >= NEAR or _slip(name, close)):
        return f"; did you mean {close!r}?"
    return f"; known: {', '.join(known) or 'none'}"


def _alike(a: str, b: str) -> float:
    return difflib.SequenceMatcher(None, a.lower(), b.lower()).ratio()


def _slip(a: str, b: str) -> bool:
    """Whether one name begins the other, or they differ by one letter changed or two swapped."""
    a, b = sorted((a, b), key=len)
    differing = [i for i, (x, y) in enumerate(zip(a, b, strict=False)) if x != y]
    if len(a) < len(b):
        return len(a) > 2 and b.startswith(a)
    return len(differing) < 2 or (len(differing) == 2 and sorted(a) == sorted(b))


@contextlib.contextmanager
def main_errors() -> Iterator[None]:
    """For command lines: print a `UserError`, and what JAX says where it finds no device, as `error: <line>` and exit
    with status 2; after Ctrl-C exit with status 130. No traceback."""
    try:
        yield
    except UserError as e:
        print(f"error: {e}", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        print(file=sys.stderr)
        sys.exit(130)
    except (RuntimeError, AssertionError) as e:
        if (line := no_device(e)) is None:
            raise
        print(f"error: {line}", file=sys.stderr)
        sys.exit(2)


def no_device(e: BaseException) -> str | None:
    """A line for an error of JAX that finds no device of the platforms asked for; None for any other."""
    frames = traceback.extract_tb(e.__traceback__)
    if not frames or not frames[-1].filename.endswith("xla_bridge.py"):
        return None
    reason = " ".join(str(e).split())[:200]
    asked = os.environ.get("JAX_PLATFORMS", "")
    return (
        f"JAX finds no device for JAX_PLATFORMS={asked or '(unset)'}{f' ({reason})' if reason else ''}: unset it, set "
        "JAX_PLATFORMS=cpu, or install the plugin for your accelerator (pip install -e '.[cuda]' or '.[tpu]')"
    )
