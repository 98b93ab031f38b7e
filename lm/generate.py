"""`python -m lm.generate` is the command line in lm/commands/generate.py."""

import runpy

if __name__ == "__main__":
    runpy.run_module("lm.commands.generate", run_name="__main__", alter_sys=True)
