"""The commands of lm.

    python -m lm.train --config=FILE --workdir=DIR         # train a model, or go on; --print_config shows every knob
    python -m lm.generate --checkpoint=PATH --prompt=TEXT  # let a model write, or chat with it
    python -m lm.evaluate --checkpoint=PATH [--data=PATH]  # how well a model predicts text
    python -m lm.zoo [FAMILY [SIZE]]                       # the model families, their sizes and trees
    python -m lm.hub inspect|import|export PATH [OUT]      # Hugging Face folders and GGUF files
    python -m scaling.sweep --out=DIR                      # train several sizes at equal compute
    python -m scaling.fit RUNS.csv                         # fit a scaling law to runs
    python -m tpu.compile --topology=v5e:4x4               # compile a train step for a pod, on any machine

Each of them explains itself with --help.
"""

import sys

from lm import cli
from lm.core.errors import UserError, main_errors

if __name__ == "__main__":
    with main_errors():
        if "--version" in sys.argv[1:]:
            print(cli.version())
        elif not {*sys.argv[1:]} - {*cli.HELP}:
            print((__doc__ or "").strip())
        else:
            raise UserError(f"{sys.argv[1]!r} is no flag of python -m lm: write python -m lm.{sys.argv[1]}, see --help")
