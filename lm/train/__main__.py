"""Train a language model.

    python -m lm.train --config=experiments/quickstart.py --workdir=runs/quickstart
    python -m lm.train --config=experiments/quickstart.py --workdir=runs/wide --config.model.d_model=256

The config file's get_config() returns an ml_collections.ConfigDict (see lm/train/config.py for every knob);
--config.a.b=value changes one. The workdir gets config.json, metrics.jsonl, loss.png and checkpoints/; the same command
again goes on from the last checkpoint.
"""

from absl import flags
from ml_collections import config_flags

from lm import cli
from lm.core.errors import UserError

CONFIG = config_flags.DEFINE_config_file("config", None, "Experiment file; --config.a.b=value changes a knob.")
COORDINATOR = flags.DEFINE_string(
    "coordinator", None, "host:port of the first of several processes; auto: from the cluster's environment (a pod)."
)
PROCESSES = flags.DEFINE_integer("processes", None, "How many processes there are, unless --coordinator=auto.")
PROCESS = flags.DEFINE_integer("process", None, "Which of them this is, from 0.")
WORKDIR = flags.DEFINE_string("workdir", None, "Folder of the run: checkpoints, metrics, plot.")


def main(argv: list[str]) -> None:
    from lm.train.loop import train  # JAX starts here, not for --help

    if COORDINATOR.value is not None:
        connect(COORDINATOR.value)
    assert WORKDIR.value is not None  # a required flag
    train(CONFIG.value, WORKDIR.value)


def connect(coordinator: str) -> None:
    """Make one run of several processes, each with its own devices."""
    import jax

    if coordinator == "auto":
        jax.distributed.initialize()
    elif PROCESSES.value is None or PROCESS.value is None:
        raise UserError(f"--coordinator={coordinator} needs --processes and --process, or give --coordinator=auto")
    else:
        jax.distributed.initialize(coordinator, PROCESSES.value, PROCESS.value)


if __name__ == "__main__":
    flags.mark_flags_as_required(["config", "workdir"])
    cli.run(main)
