# Needs make and a Python >= 3.11, nothing else: every target builds what it wants of .venv first.
# PYTHON=/path/to/python3.12 picks the interpreter of a new .venv (`make clean` drops the old one); KNOBS="--a=b ..." are
# further flags of quickstart, sweep, quicksweep and bench, TESTS="tests/data ..." the tests of test and test-slow.

PYTHON ?= python3
PY := .venv/bin/python
LIBTPU := $(if $(filter Linux-x86_64,$(shell uname -sm | tr ' ' -)),.venv/tpu)  # where there is a TPU compiler

# glibc hands buffers of a train step back to the kernel and faults them in anew each step, unless it may use
# huge pages. It reads this before a process starts, so Python cannot set it; other C libraries ignore it.
quickstart bench sweep quicksweep: export GLIBC_TUNABLES = glibc.malloc.hugetlb=1

export PIP_DISABLE_PIP_VERSION_CHECK = 1

.PHONY: help quickstart sweep quicksweep check test test-slow lint bench clean

help:  ## list the targets
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/make \1\t\2/p' Makefile | expand -t 20

quickstart: .venv/core  ## train a small model on this machine and let it write
	$(PY) -m lm.train --config=experiments/quickstart.py --workdir=runs/quickstart $(KNOBS)
	@echo
	$(PY) -m lm.generate --checkpoint=runs/quickstart --prompt="def " --temperature=0.7
	@echo
	@echo "loss curve: runs/quickstart/loss.png    again: make quickstart    more: README.md"

ISOFLOP := runs/isoflop
SWEEP = $(PY) -m scaling.sweep --config=experiments/isoflop.py
FIT = $(PY) -m scaling.fit --runs=$(ISOFLOP)/sweep/runs.jsonl --where=loss,seed=0

sweep: .venv/core  ## a scaling law from this machine: rates tuned, four budgets, six sizes, the largest budget predicted
	$(SWEEP):tune --out=$(ISOFLOP)/tune $(KNOBS)
	$(SWEEP):seeds --tuned=$(ISOFLOP)/tune/runs.jsonl --out=$(ISOFLOP)/sweep $(KNOBS)
	$(SWEEP) --tuned=$(ISOFLOP)/tune/runs.jsonl --out=$(ISOFLOP)/sweep $(KNOBS)
	$(FIT) --law=chinchilla --out=$(ISOFLOP)/fit
	$(FIT) --report=$(ISOFLOP)/fit/report.html --out=$(ISOFLOP)/fit

quicksweep: .venv/core  ## the same in little: two budgets, three sizes
	$(PY) -m scaling.sweep --out=runs/quicksweep $(KNOBS)

# What tells of most mistakes and compiles next to nothing: layout, components, counts and trees of every family, data in
# numpy, and of docs/tour.md one training step.
CHECK := tests/test_layout.py tests/test_docs.py tests/core tests/zoo/test_counts.py tests/zoo/test_rendered.py \
	tests/data/test_packing.py tests/data/test_mixture.py tests/data/test_sources.py tests/scaling/test_laws.py

check: lint  ## before each commit: lint, types, layout, counts, data, one toy step; under a minute on two cores
	$(PY) -m pytest -q -n 2 --dist=worksteal $(CHECK)

# worksteal keeps neighbours on one worker, where they share what they compiled; loadfile keeps the fixtures of
# a file, some of which take minutes, from being made twice.
test: .venv/dev $(LIBTPU)  ## the fast tests
	$(PY) -m pytest -n 2 --dist=worksteal --durations=10 $(TESTS)

test-slow: .venv/dev $(LIBTPU)  ## the long tests: trainings, several processes, wheel, notebook, TPU compilation
	$(PY) -m pytest -n 2 --dist=loadfile --durations=10 -m slow $(TESTS)

lint: .venv/dev  ## ruff and mypy
	$(PY) -m ruff check .
	$(PY) -m mypy

bench: .venv/core .venv/torch/done  ## time training and decoding against PyTorch and transformers (compares, never asserts)
	$(PY) -m benchmarks.against_torch --torch=.venv/torch/bin/python $(KNOBS)

clean:  ## remove .venv, caches and runs/
	rm -rf .venv runs dist build .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# The stamps are files inside .venv: pip runs when pyproject.toml is newer, and not otherwise.
.venv/core: pyproject.toml | .venv/bin/python
	@echo "installing into .venv (about a minute)"
	@$(PY) -m pip install -q -e .
	@touch $@

.venv/dev: pyproject.toml | .venv/bin/python
	@echo "installing with the development tools into .venv (about two minutes)"
	@$(PY) -m pip install -q -e ".[dev]"
	@touch .venv/core $@

# libtpu stays out of site-packages: there, every JAX process on a machine without a TPU would look for one and complain.
.venv/tpu: .venv/dev
	@echo "installing the TPU compiler into .venv/libtpu (about a minute)"
	@$(PY) -c 'import importlib.metadata as m; print(*(r.split(";")[0] for r in m.requires("jax") if r.startswith("libtpu")))' \
	  | xargs $(PY) -m pip install -q --no-deps --upgrade --target=.venv/libtpu
	@touch $@

# Where pip would take a build of torch with CUDA in it, TORCH=--index-url=... picks the CPU's.
.venv/torch/done: | .venv/bin/python
	@echo "installing PyTorch and transformers into .venv/torch (a few minutes)"
	@$(PY) -m venv .venv/torch
	@.venv/torch/bin/python -m pip install -q torch==2.13.0 $(TORCH)
	@.venv/torch/bin/python -m pip install -q "transformers>=5"
	@touch $@

# Debian's python3 comes without the module that puts pip into a new environment.
.venv/bin/python:
	@command -v $(PYTHON) >/dev/null || { \
	  echo "error: no $(PYTHON) here; install Python >= 3.11 or pass PYTHON=/path/to/python" >&2; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	  echo "error: $(PYTHON) is older than 3.11; pass PYTHON=/path/to/a/newer/python" >&2; exit 1; }
	@$(PYTHON) -c 'import ensurepip' 2>/dev/null || { \
	  echo "error: $(PYTHON) cannot make environments; on Debian and Ubuntu: sudo apt install python3-venv" >&2; exit 1; }
	@$(PYTHON) -m venv .venv
