"""What all command lines share: help that teaches, the version, and one line for what is wrong."""

import re
import subprocess
import sys
from pathlib import Path

import pytest
from absl import flags

from lm.commands import cli
from lm.core.errors import UserError

ROOT = Path(__file__).parents[1]
SCALING = ("sweep", "export", "fit", "laws", "flops", "tuning", "published")
MORE = (*(f"scaling.{name}" for name in SCALING), "tpu.compile", "tpu.plan", "tpu.launch")
COMMANDS = ("lm.train", "lm.generate", "lm.evaluate", "lm.clean", "lm.hub", "lm.zoo", *MORE)


def call(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-m", *words], cwd=ROOT, capture_output=True, text=True)


@pytest.mark.parametrize(
    "command",
    [
        *COMMANDS,
        "benchmarks.lowering",
        "benchmarks.step",
        "benchmarks.parts",
        "benchmarks.experts",
        "benchmarks.together",
        "benchmarks.pipelines",
        "benchmarks.against_torch",
        "benchmarks.maxtext",
    ],
)
def test_help_begins_with_how_to_type_the_command(command):
    done = call(command, "--help")
    assert done.returncode == 0 and not done.stderr
    first, *_ = done.stdout.splitlines()
    assert re.match(rf"usage: python -m {re.escape(command)}( |$)", first)
    assert f"    python -m {command}" in done.stdout, "there are examples"
    assert str(ROOT) not in done.stdout and "(default: " not in done.stdout.replace("(default: those", "")
    assert max(map(len, done.stdout.splitlines())) <= 120


def test_the_list_of_commands():
    done = call("lm")
    assert done.returncode == 0
    assert all(f"{typed(command)} " in done.stdout for command in COMMANDS)
    wrong = call("lm", "trian")
    assert wrong.returncode == 2
    assert wrong.stderr == "error: 'trian' is no command of lm; did you mean 'train'?; see lm --help\n"
    assert re.fullmatch(r"pure-lm [\w. ]+, JAX [\d.]+, Python [\d.]+\n", call("lm", "--version").stdout)


def typed(command: str) -> str:
    """lm.train -> lm train; of the other packages there is python -m alone."""
    return command.replace(".", " ") if command.startswith("lm.") else f"python -m {command}"


@pytest.mark.parametrize("command", [command for command in COMMANDS if command.startswith("lm.")])
def test_a_command_by_its_name_is_the_module(command):
    short, long = call("lm", command.removeprefix("lm."), "--help"), call(command, "--help")
    assert short.returncode == 0 and not short.stderr
    assert short.stdout == long.stdout.replace(f"usage: python -m {command}", f"usage: {typed(command)}").replace(
        "python -m lm.", "lm "
    )


def test_words_behind_a_command_are_its_own():
    done = call("lm", "zoo", "lama")
    assert done.returncode == 2 and done.stderr.startswith("error: family 'lama' is unknown")
    done = call("lm", "train", "--workdir=somewhere")
    assert done.returncode == 2 and done.stderr.startswith("error: --config is missing")


@pytest.fixture
def known():
    f = flags.FlagValues()
    flags.DEFINE_string("folder", None, "Folder of the run; made if absent.", flag_values=f)
    flags.DEFINE_integer("number", 3, "How many.", flag_values=f)
    flags.DEFINE_boolean("fast", True, "Whether it hurries.", flag_values=f)
    return f


USAGE = "--folder=DIR [--number=N]"


def test_flags_stand_in_their_order_with_defaults_in_words(known):
    text = cli.help_text(main, USAGE, known)
    entries = [line.strip() for line in text.split("flags:\n")[1].splitlines()]
    assert [re.sub(" {2,}", " | ", line) for line in entries] == [
        "--folder=DIR | Folder of the run; made if absent.",
        "--number=N | How many. Default: 3.",
        "--[no]fast | Whether it hurries.",
        "--help, --version | Show this, or the version, and exit.",
    ]


def main(argv: list[str]) -> None:
    raise UserError(f"called with {argv[1:]}")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ((), "called with []"),
        (("a",), "called with ['a']"),
        (("a", "b"), "unexpected argument 'b': flags are written --name=value; see --help"),
        (("--numbr=3",), "Unknown command line flag 'numbr'. Did you mean: number ?; see --help"),
        (("--number=x",), "flag --number=x: invalid literal for int() with base 10: 'x'; see --help"),
    ],
)
def test_wrong_words(words, message, known, capsys):
    with pytest.raises(SystemExit) as e:
        cli.run(main, 1, USAGE, known, argv=["x", *words], own_code=False)
    assert e.value.code == 2 and capsys.readouterr().err == f"error: {message}\n"


def test_a_flag_that_is_needed(known, capsys):
    line = "--folder is missing: give --folder=DIR, folder of the run; see --help"
    assert cli.lacking("folder", known, USAGE) == line
    flags.mark_flag_as_required("folder", known)
    with pytest.raises(SystemExit):
        cli.run(main, 1, USAGE, known, argv=["x"], own_code=False)
    assert capsys.readouterr().err == f"error: {line}\n"


def test_flags_of_an_earlier_call_are_forgotten(known):
    seen = []
    for words in (["--number=5"], []):
        cli.run(lambda argv: seen.append(known["number"].value), 0, "", known, argv=["x", *words], own_code=False)
    assert seen == [5, 3]
