"""`python -m lm.clean` is the command line in lm/commands/clean.py."""

import runpy

if __name__ == "__main__":
    runpy.run_module("lm.commands.clean", run_name="__main__", alter_sys=True)
