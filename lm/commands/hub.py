"""Models from elsewhere, and back: Hugging Face folders and GGUF files.

    python -m lm.hub inspect SmolLM2-135M                  # what it is, and whether it opens
    python -m lm.hub inspect model.gguf
    python -m lm.hub import SmolLM2-135M runs/smollm       # a run's folder: lm.generate, lm.evaluate, train.init_from
    python -m lm.hub part runs/electra discriminator runs/discriminator  # one model of several that trained together
    python -m lm.hub export runs/quickstart out --dtype=bfloat16   # a folder that transformers opens

inspect reads no more than names and shapes and ends with status 1 where a model would not open. export takes the latest
checkpoint (or --step), averaged parameters where the run kept an average, and weights that the multipliers of
config.parametrization are folded into. No pickle is ever read or written.
"""

import re
import sys
from collections.abc import Callable
from pathlib import Path

from absl import flags

from lm.commands import cli
from lm.core.errors import UserError, nearest

ARCHITECTURE = flags.DEFINE_string(
    "architecture", None, "Class of the model type, as in config.json; what that says, or the first, if not given."
)
STEP = flags.DEFINE_integer("step", None, "export, part: step of the checkpoint; the latest if not given.")
DTYPE = flags.DEFINE_enum("dtype", "float32", ["float32", "bfloat16", "float16"], "export: of the weights.")
MODEL_TYPE = flags.DEFINE_string("model_type", None, "export: of config.json; the first that fits if not given.")
MAX_SHARD_SIZE = flags.DEFINE_string("max_shard_size", "5GB", "export: most bytes in a file, as 500MB or 5GB.")

COMMANDS = {"inspect": ("PATH",), "import": ("PATH", "OUT"), "export": ("RUN", "OUT"), "part": ("RUN", "NAME", "OUT")}
UNITS = {"": 1, "B": 1, "KB": 10**3, "MB": 10**6, "GB": 10**9, "KIB": 2**10, "MIB": 2**20, "GIB": 2**30}
SHOWN = 10  # tensors that are listed by name


def main(argv: list[str]) -> None:
    command, *given = argv[1:] or [""]
    if command not in COMMANDS:
        raise UserError(f"{command!r} is no command{nearest(command, COMMANDS)}; see --help")
    if len(given) != len(COMMANDS[command]):
        raise UserError(f"{command} takes {' and '.join(COMMANDS[command])}, not {len(given)} arguments; see --help")
    commands: dict[str, Callable[..., None]] = {"inspect": inspect, "import": import_, "export": export, "part": part}
    commands[command](*given)


def inspect(path: str) -> None:
    from rich.console import Console
    from rich.table import Table

    from lm.core.param import count
    from lm.hub import open as hub
    from lm.hub.model_types import MODEL_TYPES
    from lm.hub.text import size_note
    from lm.inspect import tables as show

    with hub.ModelFiles(path) as files:
        source = files.find(ARCHITECTURE.value)
        comparison, config = source.comparison, source.config
        dtypes = ", ".join(sorted({tensor.dtype for tensor in source.stored.values()}))
        file_sizes = {tensor.path: tensor.path.stat().st_size for tensor in source.stored.values()}
        rows = {
            "model type": config["model_type"],
            "class": (config.get("architectures") or list(MODEL_TYPES[config["model_type"]].classes))[0],
            "family": source.knobs["family"],
            "parameters": f"{count(source.model.spec()):,}",
            "tensors": f"{len(source.stored):,} ({dtypes}), {sum(file_sizes.values()) / 1e6:,.1f} MB",
            "vocabulary": f"{source.model.vocab:,}",
            "context": hub.context_of(source.model, config) or "not given",
        }
        note = None
        try:
            tokenizer = files.text().tokenizer
            rows["tokenizer"] = f"{tokenizer.vocab_size:,} tokens"
            note = size_note(tokenizer, source.model.vocab)
        except UserError as e:
            rows["tokenizer"] = f"none that is read: {e}"
        table = Table("what")
        table.add_column(path)
        for name, value in rows.items():
            table.add_row(name, str(value))
        console = Console(highlight=False, markup=False)
        console.print(table)
        console.print(show.tree(source.model, console.width))
        wrong = [f"missing: {name}" for name in comparison.missing]
        wrong += [f"unknown: {tensor.name} {list(tensor.shape)}" for tensor in comparison.unknown]
        wrong += [
            f"other shape: {tensor.name} is {list(tensor.shape)}, the model's {list(link.shape)}"
            for tensor, link in comparison.misshapen
        ]
        unused = [tensor.name for tensor in comparison.unused]
    if unused:
        more = f" and {len(unused) - SHOWN} more" if len(unused) > SHOWN else ""
        print(f"not read, as no output depends on them: {', '.join(unused[:SHOWN])}{more}")
    if note is not None:
        print(f"note: {note}")
    for line in wrong[:SHOWN]:
        print(line)
    if len(wrong) > SHOWN:
        print(f"... and {len(wrong) - SHOWN} more")
    print("opens: no" if wrong else "opens: yes, every parameter has its tensor")
    if wrong:
        sys.exit(1)


def import_(path: str, out: str) -> None:
    from lm.core.param import count
    from lm.open import import_run

    _tell(f"reading {path} ...")
    opened = import_run(path, out, ARCHITECTURE.value, _tell_over)
    print(f"{out}: {opened.knobs['family']}, {count(opened.model.spec()):,} parameters")
    print(f"next: python -m lm.generate --checkpoint={out} --prompt=... (--chat where it was trained to)")


def part(run: str, name: str, out: str) -> None:
    from lm.core.param import count
    from lm.open import part_run

    _tell(f"reading {run} ...")
    opened = part_run(run, name, out, STEP.value)
    print(f"{out}: {name} of {run}, {count(opened.model.spec()):,} parameters")


def export(run: str, out: str) -> None:
    from lm.adapt.fold import folded
    from lm.hub.save import save_folder
    from lm.runs.checkpoint import open_model
    from lm.zoo.registry import build

    shard = size_of(MAX_SHARD_SIZE.value)
    if (Path(out).expanduser() / "checkpoints").exists():
        raise UserError(f"{out} holds a run: choose another folder")
    folder, step = Path(run).expanduser(), STEP.value
    if folder.parent.name == "checkpoints" and folder.name.isdecimal():  # a checkpoint itself
        folder, step = folder.parent.parent, int(folder.name)
    _tell(f"reading {run} ...")
    opened = open_model(folder, step)
    knobs, params = opened.config.model.to_dict(), opened.program.merge(opened.params)
    if opened.config.get("parametrization", {}).get("base"):  # multipliers, of which most files say nothing
        knobs |= {"tied": False} if "tied" in knobs else {}
        params = folded(opened.program.model, build(knobs), params)
    _tell(f"writing {out} ...")
    config = save_folder(
        out,
        knobs,
        params,
        opened.text,
        dtype=DTYPE.value,
        model_type=MODEL_TYPE.value,
        architecture=ARCHITECTURE.value,
        length=opened.text.context,
        shard=shard,
        progress=_tell_over,
    )
    print(f"{out}: {config['architectures'][0]}, {DTYPE.value}, of step {opened.step}")


def size_of(text: str) -> int:
    """Bytes of "5GB". Raises `UserError` for what is no size."""
    found = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([KMG]I?B|B|)", text.upper())
    if not found or float(found[1]) == 0:
        raise UserError(f"--max_shard_size={text} is no size: give a number and KB, MB or GB")
    return int(float(found[1]) * UNITS[found[2]])


def _tell(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def _tell_over(line: str) -> None:
    """In the place of the last such line, for someone who watches."""
    if sys.stderr.isatty():
        print(f"\r{line}\033[K", end="\r", file=sys.stderr, flush=True)


if __name__ == "__main__":
    cli.run(main, arguments=4, usage="inspect|import|part|export PATH [NAME] [OUT] [flags]")
