"""What the command lines share: absl flags, quiet logs, and one line instead of a traceback for a wrong flag or
knob."""

import logging
import os
import platform
import re
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from absl import app, flags

from lm.core.errors import UserError, main_errors


def run(main: Callable[[list[str]], None], arguments: int = 0) -> None:
    """`absl.app.run(main)`; wrong input prints `error: <line>` and exits with status 2, `--help` with 0. `main` takes
    at most so many `arguments` besides flags."""

    # A second start of the same program compiles nothing. JAX reads this when it is imported, by `main`. Each machine
    # has its own folder: what was compiled for one processor may not run on another that shares the home folder.
    os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", os.path.expanduser(f"~/.cache/pure-lm/xla/{platform.node()}"))

    def guarded(argv: list[str]) -> None:
        # Both report every backend they try and every file they touch.
        logging.getLogger("absl").setLevel(logging.ERROR)
        logging.getLogger("jax").setLevel(logging.ERROR)
        with main_errors():
            if len(argv) > 1 + arguments:
                raise UserError(
                    f"unexpected argument {argv[1 + arguments]!r}: flags are written --name=value; see --help"
                )
            try:
                main(argv)
            except BrokenPipeError:  # whoever read our output (head, less) has seen enough
                os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())

    app.run(guarded, flags_parser=_parse)


def _parse(argv: Sequence[str]) -> list[str]:
    with main_errors():
        if any(a in ("-h", "-help", "--help", "-helpfull", "--helpfull", "--helpshort") for a in argv[1:]):
            app.usage(shorthelp=not any("full" in a for a in argv[1:]), writeto_stdout=True)
            sys.exit(0)
        _check_config_file(argv)
        try:
            return flags.FLAGS(argv)
        except flags.Error as e:
            raise UserError(f"{' '.join(str(e).split())}; see --help") from e
        except (AttributeError, KeyError, TypeError, ValueError) as e:  # what ml_collections raises for a knob
            raise UserError(_knob(str(e), argv)) from e


def _check_config_file(argv: Sequence[str]) -> None:
    """Name a missing or malformed --config file before ml_collections gives its traceback."""
    for given in (a.split("=", 1)[1] for a in argv[1:] if re.match(r"--?config=", a)):
        path = Path(given.split(":")[0])
        if not path.is_file():
            raise UserError(f"config file {path} does not exist: give --config=experiments/<name>.py")
        try:
            compile(path.read_text(), str(path), "exec")
        except (SyntaxError, UnicodeDecodeError) as e:
            raise UserError(f"config file {path} is not Python: {e}") from e


def _knob(message: str, argv: Sequence[str]) -> str:
    """ml_collections' complaint about --config.a.b=value, in one line that names the whole knob."""
    key = re.search(r"'(\w+)'", message.replace("\\", ""))
    hint = re.search(r'Did you mean "(\w+)"', message)
    where = next((a.split("=")[0] for a in argv if key and re.match(rf"--config\.(\S*\.)?{key[1]}\b", a)), None)
    if where is None:
        return f"a --config value is wrong: {' '.join(message.split())}"
    suffix = f"; did you mean {hint[1]!r}?" if hint else "; config.json in a run's folder lists all knobs"
    return f"{where.lstrip('-')} is no knob of this config{suffix}"
