# Every target is the only command that a fresh machine needs.
SHELL := /bin/bash
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

CONSOLE := src/lateen/console/static/index.html

.PHONY: help setup demo down test unit system check bench clean lock console

help: ## what can be made
	@grep -hE '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## /\t/' | expand -t 12

setup: $(VENV)/.ready ## .venv and what it needs, and Debian's packages where root

$(VENV)/.ready: pyproject.toml requirements.lock tools/setup.sh
	@bash tools/setup.sh "$(PYTHON)" "$(VENV)"

console: setup $(CONSOLE) ## the console's page, made by Vite and shipped inside the package

$(CONSOLE): $(wildcard console/src/*) console/package-lock.json console/index.html console/vite.config.ts
	@echo "building the console" >&2
	@cd console && PATH="$(abspath $(BIN)):$$PATH" npm ci --silent && PATH="$(abspath $(BIN)):$$PATH" npm run --silent check && PATH="$(abspath $(BIN)):$$PATH" npm run --silent build >/dev/null
	@touch $@

demo: setup ## Bookinfo in the mesh on this machine, from nothing
	@$(BIN)/lateen demo

down: setup ## end the embedded cluster and remove its state
	@$(BIN)/lateen cluster delete

check: setup ## ruff, mypy --strict, import-linter
	$(BIN)/ruff check src tests samples tools bench
	$(BIN)/mypy
	$(BIN)/lint-imports

unit: setup ## tests without processes
	$(BIN)/python -m pytest tests/unit

system: console ## tests with the real Envoy, kubectl and namespaces
	@bash tools/browser.sh
	$(BIN)/python -m pytest tests/system

test: check unit system ## all tests

bench: setup ## measurements, as ratios to a baseline of the same run
	$(BIN)/python bench/run.py

lock: setup ## write the versions in use into requirements.lock
	@$(BIN)/python tools/lock.py > requirements.lock

clean: ## remove .venv and caches
	rm -rf console/node_modules src/lateen/console/static $(VENV) .mypy_cache .ruff_cache .pytest_cache .import_linter_cache build
