"""`python -m lm.zoo` is the command line in lm/commands/zoo.py."""

import runpy

if __name__ == "__main__":
    runpy.run_module("lm.commands.zoo", run_name="__main__", alter_sys=True)
