"""Train a language model, as an experiment file says.

    python -m lm.train --config=experiments/quickstart.py --workdir=runs/quickstart
    python -m lm.train --config=experiments/quickstart.py --workdir=runs/wide --config.model.d_model=256
    python -m lm.train --config=experiments/quickstart.py --print_config   # every knob with its comment; no training
    python -m lm.train --config=runs/quickstart --workdir=runs/again        # repeats a run, from its config.json

The workdir gets config.json, metrics.jsonl, loss.png and checkpoints/; the same command again goes on from the last
checkpoint. SIGTERM saves and ends with status 143, Ctrl-C with 130; the second Ctrl-C ends at once. Status 0: all steps
are done.

The file's get_config() returns an ml_collections.ConfigDict; --config.a.b=value changes a knob of it:

    --config.train.steps=2000                      a number, word or true/false, as the knob has now
    --config.model.size=medium                     a published size; knobs that the file sets stay, and are listed
    --config.model.family=llama                    another family: a new model, of whose knobs none are set yet
    --config.model=model.json                      a whole model, as `python -m lm.zoo llama 3.2-1b --json` prints it
    --config.objective.type=MultiToken             another objective, with its own defaults
    --config.optimizer.type=Muon                   another optimizer: knobs of its own, and those of all as they are
    --config.mesh.fsdp=4                           four devices share the parameters out; also: tensor, expert, context
    --config.parallel.pipeline=2                   layers in two stages, each with all the devices of the mesh
"""

import signal
import sys

from absl import flags

from lm.commands import cli
from lm.core.errors import UserError

CONFIG = cli.ConfigFlag("Experiment file, config.json of a run, or its folder.")
WORKDIR = flags.DEFINE_string("workdir", None, "Folder of the run: checkpoints, metrics, plot.")
PRINT = flags.DEFINE_boolean("print_config", False, "Show every knob with its comment, and exit.")
COORDINATOR = flags.DEFINE_string(
    "coordinator", None, "host:port of the first of several processes; auto: from the cluster's environment (a pod)."
)
PROCESSES = flags.DEFINE_integer("processes", None, "How many processes there are, unless --coordinator=auto.")
PROCESS = flags.DEFINE_integer("process", None, "Which of them this is, from 0.")
WAIT = flags.DEFINE_float("wait", 300.0, "Seconds in which the other processes must come.", lower_bound=1.0)

USAGE = "--config=FILE --workdir=DIR [--config.a.b=VALUE ...]"


def main(argv: list[str]) -> None:
    for name, value in (("config", CONFIG.file), ("workdir", WORKDIR.value)):
        if not value and not PRINT.value:  # an empty one would be this folder
            raise UserError(cli.lacking(name, usage=USAGE))
    # Until training begins Ctrl-C ends the process as if it were no Python: at once, wherever it is, without traceback.
    if signal.getsignal(signal.SIGINT) is not signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    from lm.train.config import check, default  # JAX is imported here, not for --help
    from lm.train.config_file import read_config
    from lm.train.override import override
    from lm.train.processes import connect, host_of
    from lm.train.show_config import shown, size_notes

    config = read_config(CONFIG.file) if CONFIG.file else default()
    notes = override(config, CONFIG.knobs)
    if PRINT.value:
        print(*(f"# {line}" for line in notes), shown(config), sep="\n")
    check(config)
    if PRINT.value:
        return
    connect(COORDINATOR.value, PROCESSES.value, PROCESS.value, WAIT.value, _tell)
    from lm.train.heartbeat import watched
    from lm.train.loop import train

    for line in () if PROCESS.value else notes + size_notes(config):
        _tell(line)
    try:
        with watched(host_of(COORDINATOR.value), _tell):
            train(config, str(WORKDIR.value))
    except KeyboardInterrupt:  # the run is saved
        sys.exit(130)


def _tell(line: str) -> None:
    print(line, file=sys.stderr)


if __name__ == "__main__":
    cli.run(main, usage=USAGE)
