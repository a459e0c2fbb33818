# `make demo` and `make test` set up everything they need; `make` alone lists the targets.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed
PEERS := $(VENV)/.peers

.DEFAULT_GOAL := help
.PHONY: help setup demo test lint bench docs mini clean

help: ## this list
	@grep -hE '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z]+):.*## /\1\t/' | expand -t 10

setup: $(INSTALLED) ## virtual environment in .venv with everything, at the versions of constraints.txt

$(INSTALLED): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed: make PYTHON=python3.12 $(MAKECMDGOALS)")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet -c constraints.txt torch
	$(BIN)/python -m pip install --quiet -c constraints.txt -e '.[dev]'
	@# Its vocabulary and mel filters are test data; what it depends on is not needed for that.
	$(BIN)/python -m pip install --quiet -c constraints.txt --no-deps openai-whisper
	@# Recorded voices are compiled; where that cannot be done, what is tested with them is skipped.
	-@$(BIN)/python -m pip install --quiet -c constraints.txt -e '.[voices]' 2>/dev/null
	@touch $@

demo: setup ## train adapters on synthetic speech and show that nothing else moves: runs/demo/report.html
	$(BIN)/lora-whisper demo

test: setup ## all tests
	$(BIN)/python -m pytest

lint: setup ## style, types, floors, and whether docs/cli.md is up to date
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python scripts/cli_reference.py --check

bench: $(PEERS) ## speed beside peers, as ratios measured in turns: runs/benchmarks, 20 minutes (ARGS=--quick: 4)
	$(BIN)/python -m benchmarks $(ARGS)

$(PEERS): $(INSTALLED)
	$(BIN)/python -m pip install --quiet -c constraints.txt -e '.[bench]'
	@touch $@

docs: setup ## docs/cli.md, from the commands' --help
	$(BIN)/python scripts/cli_reference.py

mini: setup ## the bundled backbone from nothing, in hours (on a GPU in minutes): runs/mini
	$(BIN)/python recipes/mini.py

clean: ## remove what tools left behind; keeps .venv and runs
	rm -rf .mypy_cache .pytest_cache .ruff_cache .import_linter_cache build dist *.egg-info
