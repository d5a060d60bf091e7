# Espalier: `make demo` walks one model's whole life; `make test` proves it. Both create .venv first, once.
SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help

VENV   := .venv
BIN    := $(VENV)/bin
STAMP  := $(VENV)/.installed
# The first interpreter that is at least 3.11; PYTHON=/path/to/python overrides.
PYTHON ?= $(shell for p in python3 python3.11 python3.12 python3.13; do \
    command -v $$p >/dev/null && $$p -c 'import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))' 2>/dev/null \
    && echo $$p && break; done)

.PHONY: help setup demo test test-fast lint check docs clean

help: ## list the targets
	@grep -E '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## /  make \1\t/' | expand -t 20

setup: $(STAMP) ## create .venv and install everything into it

$(STAMP): pyproject.toml constraints.txt
	@test -n "$(PYTHON)" || { echo "Espalier needs Python >= 3.11 with venv; none found on PATH (set PYTHON=...)" >&2; exit 1; }
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	@$(BIN)/python -m compileall -q src  # once: where Python may write no bytecode, every process would do it anew
	@touch $@

demo: $(STAMP) ## one model's whole life, from tickets to a traced answer
	@$(BIN)/espalier demo

test: $(STAMP) ## every test
	@$(BIN)/python -m pytest

test-fast: $(STAMP) ## the inner loop: no slow tests, no browser
	@$(BIN)/python -m pytest -m 'not slow and not browser'

CODE := $(wildcard src tests examples benchmarks)

lint: $(STAMP) ## style, types, layers
	$(BIN)/ruff check $(CODE)
	$(BIN)/ruff format --check $(CODE)
	$(BIN)/mypy
	$(BIN)/lint-imports --no-cache

check: lint ## the same, and sizes
	$(BIN)/python -m pytest tests/architecture

docs: $(STAMP) ## write the generated reference again (docs/cli.md)
	$(BIN)/python -m espalier.cli.reference docs/cli.md

clean: ## remove .venv, caches and what the demo made
	rm -rf $(VENV) .espalier demo-workspace .mypy_cache .ruff_cache .pytest_cache .hypothesis build dist src/*.egg-info
	find src tests -name __pycache__ -type d -prune -exec rm -rf {} +
