# What a person types. `make demo` and `make test` are all a fresh machine needs; each sets .venv up first.
#
#   make setup [TORCH_INDEX=URL] [CONSTRAINTS=FILE] [PIP_ARGS=…] [PYTHON=python3.12]
#   make demo  [DEMO_ARGS="--updates 50 --seed 3"]
#   make test  [PYTEST_ARGS="-k ledger"]

PYTHON ?= python3
VENV ?= .venv
CONSTRAINTS ?= constraints.txt
TORCH_INDEX ?=
PIP_ARGS ?=
DEFAULT_EXTRAS := runtime,local,operator,reasoning-gym,dev
EXTRAS ?= $(DEFAULT_EXTRAS)
DEMO_ARGS ?=
PYTEST_ARGS ?=
# Two test processes, a file always in one of them; PARALLEL= runs them one after the other.
PARALLEL ?= -n 2 --dist loadfile

PY := $(VENV)/bin/python
STAMP := $(VENV)/.setup
# What .venv is made from, here and now: another value makes it anew.
SETTINGS := $(shell cat pyproject.toml locks/dev.txt $(CONSTRAINTS) | cksum) $(EXTRAS) $(TORCH_INDEX) $(PIP_ARGS)
PIP := $(PY) -m pip install --quiet --disable-pip-version-check $(PIP_ARGS)
PINNED := $(PIP) $(if $(CONSTRAINTS),--constraint $(CONSTRAINTS)) $(if $(TORCH_INDEX),--extra-index-url $(TORCH_INDEX))
# As it stands, each file is checked against its hash in locks/ (all but PyTorch's: its build is the user's choice).
ifeq ($(CONSTRAINTS) $(EXTRAS),constraints.txt $(DEFAULT_EXTRAS))
INSTALL := $(PIP) --no-deps --require-hashes --requirement locks/dev.txt && \
	$(PINNED) torch && $(PIP) --no-deps --no-build-isolation --editable .
else
INSTALL := $(PINNED) --editable '.[$(EXTRAS)]'
endif
PACKAGES := images/shared/asyncppo images/runtime/asyncppo_runtime operator/asyncppo_operator
# Modules that write a file of the repository from the code, and can check that it is up to date.
GENERATORS := $(shell grep -lE '^    generated_file_main.[A-Z]' -r images operator --include='*.py' | sort)
LARGEST_FILE := 500000
# Tests that need more than this machine have targets of their own.
NOT_HERE := not vllm and not cluster and not faults and not cases

.DEFAULT_GOAL := help
.PHONY: help setup demo test lint large-files drift unit test-cases test-faults test-faults-ci prove bench generate clean

comma := ,

include locks.mk
include vllm.mk
include kubernetes.mk
include dashboards.mk

help:  ## this list
	@grep -hE '^[a-z0-9-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z0-9-]+):.*## */\1\t/' | expand -t 16

setup:  ## .venv with the `asyncppo` command, for training on this machine
	@if [ "$$(cat $(STAMP) 2>/dev/null)" != '$(SETTINGS)' ]; then \
		$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "asyncppo needs Python 3.11 or newer; set PYTHON=…")' && \
		echo 'Setting up $(VENV) (once; some minutes)' && \
		{ [ -x $(PY) ] || $(PYTHON) -m venv $(VENV); } && \
		$(INSTALL) && \
		echo '$(SETTINGS)' > $(STAMP); \
	fi

demo: setup  ## train an agent to guess numbers and look at the report
	$(VENV)/bin/asyncppo run examples/guess-number.yaml --output runs/demo-$$(date +%Y%m%d-%H%M%S) $(DEMO_ARGS)

test: lint drift unit  ## everything that can be tested on one machine

lint: setup large-files  ## style, types, layers of imports, no large files
	$(VENV)/bin/ruff check --output-format concise .
	$(VENV)/bin/ruff format --check --quiet .
	$(VENV)/bin/mypy
	$(VENV)/bin/lint-imports --no-logo

large-files:  ## whether a file is tracked that is too large for the repository
	@if git rev-parse --is-inside-work-tree >/dev/null 2>&1; then \
		git ls-files -z | xargs -0 du -b --apparent-size | awk '$$1 > $(LARGEST_FILE) { print $$2 " has " $$1 " bytes; files above $(LARGEST_FILE) do not belong into the repository"; found = 1 } END { exit found }'; \
	fi

drift: setup  ## whether the generated files are up to date
	@for file in $(GENERATORS); do \
		module=$$(echo $${file%.py} | sed -E 's,^(images/[a-z]+|operator)/,,; s,/,.,g'); \
		$(PY) -m $$module --check || exit 1; \
	done

generate: setup  ## write the generated files anew
	@for file in $(GENERATORS); do \
		module=$$(echo $${file%.py} | sed -E 's,^(images/[a-z]+|operator)/,,; s,/,.,g'); \
		$(PY) -m $$module --write || exit 1; \
	done

unit: setup  ## unit and integration tests
	$(PY) -m pytest -q -m '$(NOT_HERE)' $(PARALLEL) tests/unit tests/engine_contract tests/integration $(PYTEST_ARGS)

test-cases: setup  ## inputs that must behave: odd environments, rewards, manifests, folders, callers
	$(PY) -m pytest -q -m cases $(PARALLEL) tests/cases $(PYTEST_ARGS)

test-faults: setup  ## every role killed and hung in every phase of a sync; the table goes to docs/reliability.md
	$(PY) -m tests.faults.matrix --write docs/reliability.md $(FAULTS_ARGS)

test-faults-ci: setup  ## the part of it that fits CI
	$(PY) -m pytest -q -m faults tests/faults $(PYTEST_ARGS)

prove: setup  ## the long proofs (hours): every fault, 200 random runs, every history; tables go to docs/reliability.md
	$(PY) -m benchmarks.exploration --write docs/reliability.md
	$(PY) -m tests.faults.matrix --write docs/reliability.md $(FAULTS_ARGS)
	$(PY) -m benchmarks.fault_runs --seeds 0:200 --results runs/fault-runs-$$(git rev-parse --short HEAD).jsonl --write docs/reliability.md

bench: setup  ## how fast the demo learns; asynchronous against synchronous training
	$(PY) -m benchmarks.learning
	$(PY) -m benchmarks.overlap

clean:  ## remove .venv and caches; runs/ stays
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
