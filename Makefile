# `make help` lists what there is.
SHELL := /bin/bash
PY := .venv/bin/python
UV := .venv/bin/uv
PYTEST := .venv/bin/pytest

.DEFAULT_GOAL := help

.PHONY: help
help: ## This list
	@grep -E '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F':.*## ' '{printf "  make %-20s %s\n", $$1, $$2}'

# --- the two commands of the README -----------------------------------------------------------------------

.PHONY: demo
demo: venv ## A session and a job on a real cluster, from nothing (as root)
	$(PY) -m dev.demo up

.PHONY: test
test: lint prepare ## Everything: lint, unit, analysis, control plane, cluster (as root)
	$(PYTEST) -n 2 tests/unit tests/analysis
	$(PYTEST) tests/control_plane tests/perf tests/cluster

# --- parts of them ----------------------------------------------------------------------------------------

.PHONY: demo-clean
demo-clean: venv ## Remove all that `make demo` made
	$(PY) -m dev.demo clean

.PHONY: lint
lint: venv ## ruff, mypy, import-linter, generated files, all in order
	.venv/bin/ruff check .
	.venv/bin/ruff format --check .
	.venv/bin/mypy operator/panosc_operator analysis/panosc_analysis dev images manifests
	.venv/bin/lint-imports
	$(PY) -m dev.generate --check

.PHONY: test-unit
test-unit: venv ## Unit tests: no cluster, under a minute
	$(PYTEST) -n 2 tests/unit

.PHONY: test-analysis
test-analysis: venv ## The analyses against known truth, in full
	$(PYTEST) -n 2 tests/analysis

.PHONY: test-control-plane
test-control-plane: venv ## Every lifecycle against a real API server (as root)
	$(PYTEST) tests/control_plane tests/perf

.PHONY: test-cluster
test-cluster: prepare ## Real pods, JupyterLab in Chromium, Dask (as root)
	$(PYTEST) tests/cluster

# What takes minutes on a machine where nothing is cached, with its progress on screen.
.PHONY: prepare
prepare: venv
	$(PY) -m dev.cluster build
	$(PY) -m images.build analysis jupyter operator

# --- for development --------------------------------------------------------------------------------------

.venv/.installed: requirements.lock operator/pyproject.toml analysis/pyproject.toml
	python3 -m venv --upgrade-deps .venv
	.venv/bin/pip install --quiet "$$(grep -oE '^uv==[0-9.]+' requirements.lock)"
	$(UV) pip install --quiet --python $(PY) -r requirements.lock
	$(UV) pip install --quiet --python $(PY) --no-deps --no-build-isolation -e operator -e analysis
	touch $@

.PHONY: venv
venv: .venv/.installed ## The Python environment in .venv, from requirements.lock

.PHONY: images
images: venv ## Build the container images
	$(PY) -m images.build

.PHONY: generate
generate: venv ## Write crds/, docs/reference, the catalogue of workflows and Dask's CRDs anew
	$(PY) -m dev.generate
	$(PY) -m manifests.generate_dask_crds

.PHONY: benchmark
benchmark: venv ## The figures of docs/performance.md
	$(PY) tests/perf/bench_sase_delivery.py

.PHONY: lock
lock: venv ## Write requirements.lock anew from the pyproject.toml files
	$(UV) pip compile --quiet --python-version 3.11 --python-platform x86_64-manylinux_2_36 \
	  operator/pyproject.toml analysis/pyproject.toml --group pyproject.toml:dev --group pyproject.toml:jupyter \
	  --generate-hashes --no-emit-index-url --no-header --no-annotate -o requirements.lock
