"""`python -m lm` is the command line in lm/commands/main.py."""

import runpy

if __name__ == "__main__":
    runpy.run_module("lm.commands.main", run_name="__main__", alter_sys=True)
