# Every target is the only command that a fresh machine needs.
SHELL := /bin/bash
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

# Each process of the embedded cluster imports the checkout; without bytecode each would compile it again.
unexport PYTHONDONTWRITEBYTECODE

# Files of tests at a time; failures once more, alone. Unit tests wait more than they compute, for sockets and timers.
UNIT := $(BIN)/python tools/suite.py 4
# Each worker has a cluster of its own.
SYSTEM := $(BIN)/python tools/suite.py 2

CONSOLE := src/lateen/console/static/index.html

# What test-kubernetes runs on, one after the other.
KUBERNETES ?= 1.33.13 1.37.2

.PHONY: help setup demo down test unit conformance system test-long test-clients test-gateway-api test-kubernetes test-observability check bench clean lock console wheel images test-images charts fuzz

help: ## list the targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## /\t/' | expand -t 12

setup: $(VENV)/.ready ## create .venv; as root, install missing Debian packages

$(VENV)/.ready: pyproject.toml requirements-dev.lock tools/setup.sh
	@bash tools/setup.sh "$(PYTHON)" "$(VENV)"

console: setup $(CONSOLE) ## build the console's page with Vite, into the package

$(CONSOLE): $(shell find console/src -type f) $(wildcard console/*.json console/*.ts console/*.js console/*.html)
	@echo "building the console" >&2
	@cd console && PATH="$(abspath $(BIN)):$$PATH" npm ci --silent && PATH="$(abspath $(BIN)):$$PATH" npm run --silent check && PATH="$(abspath $(BIN)):$$PATH" npm run --silent build >/dev/null
	@touch $@

demo: setup ## Bookinfo in the mesh on this machine, from nothing
	@$(MAKE) --no-print-directory console || echo "the demo goes on without the console's page" >&2
	@$(BIN)/lateen demo

down: setup ## stop the embedded cluster and delete its state
	@$(BIN)/lateen cluster delete

check: setup ## ruff, mypy --strict, import-linter
	$(BIN)/ruff format --check -q src tests tools bench
	$(BIN)/ruff check src tests tools bench
	$(BIN)/python tools/stubs.py
	$(BIN)/mypy
	$(BIN)/lint-imports

unit: setup ## tests without processes
	$(UNIT) tests/unit

conformance: setup ## the conformance runner on our own cases
	@for cases in tests/conformance/samples/*/; do mode=$$(basename $$cases); \
	  echo "conformance: $$mode"; $(BIN)/python tests/conformance/run.py $$mode $$cases || exit 1; done

system: console ## tests with the real Envoy, kubectl and namespaces
	@bash tools/browser.sh
	$(SYSTEM) -m "not long" tests/system

test: setup ## all tests but the suites that have targets of their own
	@$(MAKE) --no-print-directory -j 2 check unit conformance
	@$(MAKE) --no-print-directory system

test-long: setup ## system tests that take minutes: roots replaced under load, limits, several clusters, the pages of docs
	$(SYSTEM) -m long tests/system

test-clients: setup ## clients that others have made: Python libraries, kopf; with Go, built once: client-go, istioctl, Helm 3 and 4, stern, Pebble, SPIRE
	$(BIN)/python tests/clients/run.py

test-gateway-api: setup ## the Gateway API's conformance suite (needs Go): passed, failed, skipped by profile; ARGS='--test NAME'
	$(BIN)/python tests/gateway-api/run.py $(ARGS)

test-kubernetes: setup ## the article, and outages, on Kubernetes' own control plane (built with Go, 20 minutes once for each version); KUBERNETES=1.37.2
	set -e; for version in $(KUBERNETES); do export LATEEN_TEST_KUBERNETES=$$version; \
		$(BIN)/python tests/real-kubernetes/building.py; \
		$(BIN)/python -m pytest tests/real-kubernetes -rs -o timeout=900; done

test-observability: setup ## the mesh in the real Kiali and Jaeger, boards and Grafana's schema (need Go), metrics in the real Prometheus (Debian's)
	$(BIN)/python tests/clients/binaries.py jaeger kiali
	$(BIN)/python -m pytest tests/observability -rs
	$(BIN)/python -m pytest tests/unit/test_real_prometheus.py tests/system/test_series.py -rs

fuzz: setup ## 10,000 mutated manifests and reviews against the API server: no 5xx, at most 300 MB
	$(BIN)/python tests/unit/mutants.py --count 10000 --seconds 300

bench: setup ## benchmarks, as ratios to a baseline of the same run
	$(BIN)/python bench/run.py

charts: setup ## Helm charts of the mesh: charts/base, istiod, gateway, addons
	@$(BIN)/python tools/charts.py

images: console ## OCI images for amd64 and arm64 in dist/images, from Debian's packages and locked wheels; HUB=, TAG=
	@$(BIN)/python tools/images.py $(if $(HUB),--hub $(HUB)) $(if $(TAG),--tag $(TAG))

test-images: images ## the images in the embedded cluster, under runc and crun, and images of container engines, where these are installed
	$(BIN)/python -m pytest tests/images -rs

wheel: setup ## dist/*.whl, with the console's page
	@$(BIN)/python -m pip wheel -q --no-deps -w dist .

lock: setup ## write the versions in use, with the hashes of their files, into the lock files
	@$(BIN)/python tools/lock.py

clean: ## remove .venv and caches
	rm -rf console/node_modules src/lateen/console/static $(VENV) typings .mypy_cache .ruff_cache .pytest_cache .import_linter_cache build
