"""`python -m lm.hub` is the command line in lm/commands/hub.py."""

import runpy

if __name__ == "__main__":
    runpy.run_module("lm.commands.hub", run_name="__main__", alter_sys=True)
