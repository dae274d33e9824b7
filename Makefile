# On a fresh machine with Python >= 3.11, make and a C library: `make demo`, `make test`.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/ready
JOBS ?= 2

.DEFAULT_GOAL := help
.PHONY: help env demo test check faults soak format lint types contracts bench bench-peers clean

help: ## show this list
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 14

env: $(READY) ## create the environment in .venv

$(READY): pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Headwater needs Python 3.11 or newer: make PYTHON=python3.12 ...")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --upgrade "pip>=25.1"
	@# Setuptools warns of every editable installation at length.
	PYTHONWARNINGS=ignore $(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e . --group dev
	@touch $@

demo: $(READY) ## build the sample project, change one asset, rebuild only what that touched
	@$(BIN)/python sample_data/demo.py

test: $(READY) ## run the tests
	$(BIN)/python -m pytest -n $(JOBS) --dist worksteal -q

# What of the fault suite.
TESTS ?= tests/faults

faults: $(READY) ## faults: simulated, at every call, real kills (minutes)
	HEADWATER_FAULTS=commit $(BIN)/python -m pytest -n $(JOBS) -q -m faults $(TESTS) tests/catalog/storage/duckdb/test_damage.py

soak: $(READY) ## the same for hours; TESTS=tests/faults/test_simulation.py for a part
	HEADWATER_FAULTS=soak $(BIN)/python -m pytest -n $(JOBS) -q -m faults --timeout=0 $(TESTS)

check: format lint types contracts test ## everything that must hold before a commit

format: $(READY)
	$(BIN)/ruff format --check .

lint: $(READY)
	$(BIN)/ruff check .

# pyright wants to see the root folder under the name of the package, whatever the checkout is called.
types: $(READY)
	@mkdir -p .import && ln -sfn .. .import/headwater
	$(BIN)/pyright --pythonpath $(BIN)/python -p .import/headwater

contracts: $(READY)
	$(BIN)/lint-imports --config .importlinter --no-cache

bench: $(READY) ## benchmarks: Headwater against the raw limit
	$(BIN)/python -m benchmarks

bench-peers: $(READY) ## the same work in Dagster, installed apart in .peers
	$(BIN)/python -m benchmarks --peers

clean: ## remove the environment and every generated file
	rm -rf $(VENV) .import .peers build dist *.egg-info .pytest_cache .ruff_cache .hypothesis
