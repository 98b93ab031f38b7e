"""What the command lines share: flags, help, quiet logs, and one line instead of a traceback for a wrong flag or
knob."""

import contextlib
import importlib.metadata
import logging
import os
import platform
import re
import sys
import textwrap
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from absl import flags

from lm.core import imports, startup
from lm.core.errors import UserError, main_errors

HELP = ("-h", "-help", "--help", "-helpfull", "--helpfull", "--helpshort")
PLACEHOLDERS = {"int": "N", "float": "X"}  # of a value in the list of flags, where the usage line does not say
WIDTH = 110
IMPORT = "File, or module, to import first, which defines components of your own; may be repeated."

Overrides = tuple[tuple[str, str | None], ...]


class ConfigFlag:
    """The flag --config=FILE, and with it any number of --config.a.b=value."""

    def __init__(self, help: str, default: str | None = None, flag_values: flags.FlagValues = flags.FLAGS) -> None:
        self._file = flags.DEFINE_string("config", default, help, flag_values=flag_values)
        self._knobs = flags.DEFINE_multi_string("config_knob", [], "", flag_values=flag_values)  # see `_spelled`

    @property
    def file(self) -> str | None:
        return self._file.value

    @property
    def knobs(self) -> Overrides:
        """(path, text) of each knob, as ("data.length", "64"); None for --config.train.unroll without a value."""
        pairs = (text.partition("=") for text in self._knobs.value)
        return tuple((path, value if sign else None) for path, sign, value in pairs)


def run(
    main: Callable[[list[str]], None],
    arguments: int = 0,
    usage: str = "",
    flag_values: flags.FlagValues = flags.FLAGS,
    argv: Sequence[str] | None = None,
    own_code: bool = True,
) -> None:
    """Parse the command line and call `main` with what is no flag of it (the program's name first), at most so many
    `arguments`. Wrong input prints `error: <line>` and exits with status 2; --help prints `usage`, the docstring of
    main's module and its flags, in their order there. `own_code`: there is --import, for commands that open models or
    configs."""

    # A second start of the same program compiles nothing. JAX reads this when it is imported, by `main`. Each machine
    # has its own folder: what was compiled for one processor may not run on another that shares the home folder.
    os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", os.path.expanduser(f"~/.cache/pure-lm/xla/{platform.node()}"))
    startup.prepare()
    # Both report every backend they try and every file they touch.
    logging.getLogger("absl").setLevel(logging.ERROR)
    logging.getLogger("jax").setLevel(logging.ERROR)
    argv = list(sys.argv if argv is None else argv)
    if own_code and "import" not in flag_values:
        flags.DEFINE_multi_string("import", [], IMPORT, flag_values=flag_values)
    with main_errors():
        if {*HELP} & {*argv[1:]}:
            print(help_text(main, usage, flag_values))
            return
        if "--version" in argv[1:]:
            print(version())
            return
        flag_values.unparse_flags()  # of an earlier call in this process
        rest = parse(argv, flag_values, usage)
        if len(rest) > 1 + arguments:
            raise UserError(f"unexpected argument {rest[1 + arguments]!r}: flags are written --name=value; see --help")
        for where in (flag_values["import"].value or ()) if own_code else ():
            imports.load(where)
        try:
            main(rest)
        except BrokenPipeError:  # whoever read our output (head, less) has seen enough
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


@contextlib.contextmanager
def doing(what: str) -> Iterator[None]:
    """Tell on standard error what takes a while: a line that turns on a terminal, a plain one elsewhere."""
    from rich.console import Console  # here, so that --help answers at once

    console = Console(stderr=True)
    if console.is_terminal:
        with console.status(what):
            yield
    else:
        print(what, file=sys.stderr, flush=True)
        yield


def parse(argv: Sequence[str], flag_values: flags.FlagValues = flags.FLAGS, usage: str = "") -> list[str]:
    """Set the flags; returns what is none. Raises `UserError`."""
    try:
        return flag_values(_spelled(argv) if "config_knob" in flag_values else list(argv))
    except flags.Error as e:
        text = " ".join(str(e).split())
        if missing := re.search(r"Flag --(\w+) must have a value other than None", text):
            raise UserError(lacking(missing[1], flag_values, usage)) from e
        raise UserError(f"{text}; see --help") from e


def lacking(name: str, flag_values: flags.FlagValues = flags.FLAGS, usage: str = "") -> str:
    """What to say where a flag is needed and was not given."""
    flag = flag_values[name]
    return f"--{name} is missing: give --{name}={_placeholder(flag, usage)}, {_first(flag.help)}; see --help"


def _spelled(argv: Sequence[str]) -> list[str]:
    """--config.a.b=value, --config.a.b value and --noconfig.a.b, of which there are as many as knobs, as values of one
    flag."""
    spelled: list[str] = []
    words = list(argv)
    while words:
        word = words.pop(0)
        if word == "--":
            return [*spelled, word, *words]
        found = re.fullmatch(r"--?(no)?config\.([^=]+)(?:=(.*))?", word, re.DOTALL)
        if found is None:
            spelled.append(word)
            continue
        no, path, value = found.groups()
        if no:
            value = "false"
        elif value is None and words and not re.match(r"--?[a-zA-Z]", words[0]):
            value = words.pop(0)
        spelled.append(f"--config_knob={path}" + ("" if value is None else f"={value}"))
    return spelled


def help_text(main: Callable, usage: str = "", flag_values: flags.FlagValues = flags.FLAGS) -> str:
    """Usage, what the command does with examples, its flags, main ones first."""
    where = main.__globals__
    module = sys.argv[0] if main.__module__ == "__main__" and flag_values is flags.FLAGS else main.__module__
    found = flag_values.flags_by_module_dict()
    own = found.get(module) or found.get(sys.argv[0]) or []
    if "config_knob" in flag_values:
        own = [flag_values["config"], *own]
    text = (where["__doc__"] or "").strip()
    if "PROGRAM" in where:
        text = text.replace("python -m lm.", "lm ")
    lines = [f"usage: {program(where)} {usage}".rstrip(), "", text, "", "flags:"]
    for flag in own:
        value = "" if flag.boolean else f"={_placeholder(flag, usage)}"
        lines += _entry(f"--{'[no]' if flag.boolean and flag.default else ''}{flag.name}{value}", _with_default(flag))
    if "config_knob" in flag_values:
        lines += _entry("--config.a.b=VALUE", "Change a knob of the config.")
    if "import" in flag_values:
        lines += _entry("--import=FILE.py", IMPORT)
    lines += _entry("--help, --version", "Show this, or the version, and exit.")
    return "\n".join(lines)


def program(where: dict[str, Any]) -> str:
    """How the command is typed: python -m lm.train, or what `lm.commands.main` says of it, lm train."""
    if "PROGRAM" in where:
        return where["PROGRAM"]
    spec = where.get("__spec__")
    name = (spec.name if spec else where["__name__"]).removesuffix(".__main__")
    return f"python -m {name.replace('lm.commands.', 'lm.')}"


def version() -> str:
    def of(package: str) -> str:
        try:
            return importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            return "not installed"

    return f"pure-lm {of('pure-lm')}, JAX {of('jax')}, Python {platform.python_version()}"


def _entry(left: str, text: str) -> list[str]:
    wrapped = textwrap.wrap(text, WIDTH - 26) or [""]
    first = [f"  {left:<22}  {wrapped[0]}"] if len(left) <= 22 else [f"  {left}", f"{'':26}{wrapped[0]}"]
    return [line.rstrip() for line in first + [f"{'':26}{line}" for line in wrapped[1:]]]


def _placeholder(flag: flags.Flag, usage: str) -> str:
    if choices := getattr(flag.parser, "enum_values", None):
        return "|".join(choices)
    found = re.search(rf"--{flag.name}=([^\s\]]+)", usage)
    if found:
        return found[1]
    path = flag.flag_type() == "string" and re.match(r"(\w+ )?(folder|file|directory)\b", flag.help, re.IGNORECASE)
    return PLACEHOLDERS.get(flag.flag_type(), "PATH" if path else "TEXT")


def _with_default(flag: flags.Flag) -> str:
    default, text = flag.default, re.sub(r"^<[^>]*>: ", "", flag.help)  # absl puts the choices in front
    if default is None or default == "" or default == [] or flag.boolean:
        return text
    shown = "this folder" if default == "." else ",".join(default) if isinstance(default, list) else default
    return f"{text} Default: {shown}."


def _first(text: str) -> str:
    """The first sentence, as it goes on after a bracket."""
    sentence = text.split("; ")[0].split(". ")[0].rstrip(".")
    return sentence[:1].lower() + sentence[1:]
