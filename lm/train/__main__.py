"""`python -m lm.train` is the command line in lm/commands/train.py."""

import runpy

if __name__ == "__main__":
    runpy.run_module("lm.commands.train", run_name="__main__", alter_sys=True)
