"""Compile a program for a TPU pod, on any machine, and say what it needs and does there.

    python -m tpu.compile --topology=v5e:4x4                                  GPT-2 small, experiments/recipes/gpt2.py
    python -m tpu.compile --topology=v5p:4x4x4 --mesh=fsdp=64 --config=experiments/recipes/llama.py:3-8b
    python -m tpu.compile --topology=v5e:4x4 --slices=2 --price=1.2 --out=report.json --plot=report.png
    python -m tpu.compile --topology=v5e:2x2 --mesh=tensor=4 --step=decode --batch=8 --length=1024

The real TPU compiler runs (libtpu, `pip install "pure-lm[tpu]"`); nothing is executed and no parameter is allocated.
The report: whether it fits, memory by kind, FLOPs and collectives with loops counted, a roofline of the step time, MFU,
tokens/s. tpu/README.md tells how to read it."""

import json
import sys
from pathlib import Path

from absl import flags

from lm.commands import cli
from lm.core.errors import UserError

DEFAULT = Path(__file__).resolve().parents[1] / "experiments" / "recipes" / "gpt2.py"

CONFIG = cli.ConfigFlag(
    "Experiment file, config.json of a run, or its folder; experiments/recipes/gpt2.py if not given."
)
TOPOLOGY = flags.DEFINE_string("topology", "v5e:4x4", "TPU generation and shape: v5e:4x4, v5p:4x4x4, v6e:16x16 ...")
SLICES = flags.DEFINE_integer("slices", 1, "So many such slices, joined by the data-centre network.", lower_bound=1)
MESH = flags.DEFINE_list("mesh", [], "Axes of the mesh, in place of --config.mesh.fsdp=16 --config.mesh.tensor=4.")
STEP = flags.DEFINE_enum("step", "train", ["train", "prefill", "decode"], "What is compiled.")
BATCH = flags.DEFINE_integer("batch", 0, "Rows of prefill and decode; 0: config.data.batch_size.", lower_bound=0)
LENGTH = flags.DEFINE_integer("length", 0, "Tokens read, or room of the cache; 0: config.data.length.", lower_bound=0)
PRICE = flags.DEFINE_float("price", 0.0, "US dollars for a chip and hour: report what a trillion tokens cost.", 0)
OUT = flags.DEFINE_string("out", None, "Also write the report to this JSON file.")
PLOT = flags.DEFINE_string("plot", None, "Also draw memory and time of the report to this PNG file.")
HLO = flags.DEFINE_string("hlo", None, "Also write the compiled program to this file, as XLA's text.")
EXECUTABLE = flags.DEFINE_string("executable", None, "Also write the compiled program to this file, to be run.")


def main(argv: list[str]) -> None:
    from tpu.ahead import Options, report  # isort: skip  # sets up this process before jax starts
    from lm.train.config_file import read_config
    from lm.train.override import override
    from lm.train.show_config import size_notes
    from tpu.report import describe

    config = read_config(CONFIG.file or DEFAULT)
    slices = (("mesh.slice", str(SLICES.value)),) if SLICES.value > 1 else ()
    for line in override(config, slices + _mesh(MESH.value) + CONFIG.knobs) + size_notes(config):
        print(line, file=sys.stderr)
    options = Options(STEP.value, BATCH.value, LENGTH.value, PRICE.value, HLO.value, EXECUTABLE.value)
    result = report(config, TOPOLOGY.value, options)
    print(describe(result))
    if OUT.value:
        Path(OUT.value).write_text(json.dumps(result.to_json(), indent=2) + "\n")
    if PLOT.value:
        from tpu.plots import draw

        draw(result).savefig(PLOT.value, dpi=130)


def _mesh(given: list[str]) -> cli.Overrides:
    """--mesh=fsdp=16,tensor=4, as knobs."""
    pairs = [axis.partition("=") for axis in given]
    for name, sign, size in pairs:
        if not (sign and size.lstrip("-").isdigit()):
            raise UserError(f"--mesh has {name + sign + size!r}: write axes and sizes as fsdp=16,tensor=4")
    return tuple((f"mesh.{name.strip()}", size) for name, _, size in pairs)


if __name__ == "__main__":
    cli.run(main, usage="[--topology=v5e:4x4] [--mesh=fsdp=16,tensor=4] [--config=FILE] [--config.a.b=VALUE ...]")
