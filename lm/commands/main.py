"""Language models in functional JAX. The commands:

    lm train --config=FILE --workdir=DIR         # train a model, or go on; --print_config shows every knob
    lm generate --checkpoint=PATH --prompt=TEXT  # let a model write, or chat with it
    lm evaluate --checkpoint=PATH [--data=PATH]  # how well a model predicts text
    lm clean SOURCE --out=FOLDER                 # drop what is no text, or there twice, and say why
    lm zoo [FAMILY [SIZE]]                       # the model families, their sizes and trees
    lm hub inspect|import|export PATH [OUT]      # Hugging Face folders and GGUF files

    python -m scaling.plan --flops=2e13 --out=DIR  # choose the runs of a sweep, and foretell their answer
    python -m scaling.sweep --out=DIR            # train several sizes at equal compute
    python -m scaling.fit --runs=RUNS.csv        # fit a scaling law to runs
    python -m scaling.predict --fit=FILE --flops=X  # size, tokens and loss of a run nobody made, and its config
    python -m scaling.coordinates --sizes=...    # do activations of every size change alike (muP)?
    python -m scaling.dynamics --checkpoint=RUN  # what a run knows by heart, and which tokens it predicts badly
    python -m scaling.export RUNS --out=FILE     # run records as Parquet
    python -m scaling.laws [NAME]                # the laws there are, and their published constants
    python -m scaling.flops FAMILY SIZE          # training FLOPs of a token, as each paper counts them
    python -m scaling.tuning --runs=FILE --out=BEST  # the best learning rate and batch of each cell of a grid
    python -m scaling.published [NAME]           # published runs, and how to repeat the fits to them
    python -m tpu.compile --topology=v5e:4x4     # compile a train step for a pod, on any machine
    python -m tpu.plan --chips=v5p-256           # find the layout for a run on a pod
    python -m tpu.launch --launch=FILE --on=NAME # start a job on TPU VMs, GKE, SLURM or hosts with GPUs

Each of them explains itself with --help. `lm train` is `python -m lm.train`, and so on.
"""

import runpy
import sys

from lm.commands import cli
from lm.core.errors import UserError, main_errors, nearest

COMMANDS = ("train", "generate", "evaluate", "clean", "zoo", "hub")


def main() -> None:
    """Of `lm COMMAND ...` and `python -m lm COMMAND ...`: run lm/commands/COMMAND.py."""
    command, *rest = sys.argv[1:] or ["--help"]
    if command in COMMANDS:
        sys.argv[1:] = rest
        # As python -m runs it: processes that it starts find the command's module, not this one, as their main one.
        runpy.run_module(f"lm.commands.{command}", {"PROGRAM": f"lm {command}"}, run_name="__main__", alter_sys=True)
        return
    with main_errors():
        if command == "--version":
            print(cli.version())
        elif command in cli.HELP:
            print((__doc__ or "").strip())
        else:
            raise UserError(f"{command!r} is no command of lm{nearest(command, COMMANDS)}; see lm --help")


if __name__ == "__main__":
    main()
