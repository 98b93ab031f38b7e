"""`python -m lm.evaluate` is the command line in lm/commands/evaluate.py."""

import runpy

if __name__ == "__main__":
    runpy.run_module("lm.commands.evaluate", run_name="__main__", alter_sys=True)
