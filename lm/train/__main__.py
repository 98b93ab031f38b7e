"""Train a language model.

    python -m lm.train --config=experiments/quickstart.py --workdir=runs/quickstart
    python -m lm.train --config=experiments/quickstart.py --workdir=runs/wide --config.model.d_model=256

The config file's get_config() returns an ml_collections.ConfigDict (see lm/train/config.py for every knob);
--config.a.b=value changes one. The workdir gets config.json, metrics.jsonl, loss.png and checkpoints/; the same command
again goes on from the last checkpoint. SIGTERM saves and ends with status 0, Ctrl-C saves and ends with status 130; the
second Ctrl-C ends at once.
"""

import signal
import sys

from absl import flags
from ml_collections import config_flags

from lm import cli

CONFIG = config_flags.DEFINE_config_file("config", None, "Experiment file; --config.a.b=value changes a knob.")
COORDINATOR = flags.DEFINE_string(
    "coordinator", None, "host:port of the first of several processes; auto: from the cluster's environment (a pod)."
)
PROCESSES = flags.DEFINE_integer("processes", None, "How many processes there are, unless --coordinator=auto.")
PROCESS = flags.DEFINE_integer("process", None, "Which of them this is, from 0.")
WAIT = flags.DEFINE_float("wait", 300.0, "Seconds in which the other processes must come.", lower_bound=1.0)
WORKDIR = flags.DEFINE_string("workdir", None, "Folder of the run: checkpoints, metrics, plot.")


def main(argv: list[str]) -> None:
    # Until training begins Ctrl-C ends the process as if it were no Python: at once, wherever it is, without traceback.
    if signal.getsignal(signal.SIGINT) is not signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    from lm.train.processes import connect

    connect(COORDINATOR.value, PROCESSES.value, PROCESS.value, WAIT.value, lambda line: print(line, file=sys.stderr))
    from lm.train.loop import train  # JAX starts here, not for --help

    assert WORKDIR.value is not None  # a required flag
    try:
        train(CONFIG.value, WORKDIR.value)
    except KeyboardInterrupt:  # the run is saved
        sys.exit(130)


if __name__ == "__main__":
    flags.mark_flags_as_required(["config", "workdir"])
    cli.run(main)
