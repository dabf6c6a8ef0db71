# `make help` lists what there is.
SHELL := /bin/bash
PY := .venv/bin/python
UV := .venv/bin/uv

.DEFAULT_GOAL := help

.PHONY: help
help: ## This list
	@grep -E '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F':.*## ' '{printf "  make %-18s %s\n", $$1, $$2}'

.venv/.installed: requirements.lock operator/pyproject.toml analysis/pyproject.toml
	python3 -m venv .venv
	.venv/bin/pip install --quiet "$$(grep -oE '^uv==[0-9.]+' requirements.lock)"
	$(UV) pip install --quiet --python $(PY) -r requirements.lock
	$(UV) pip install --quiet --python $(PY) --no-deps -e operator -e analysis
	touch $@

.PHONY: venv
venv: .venv/.installed ## The Python environment in .venv, from requirements.lock

.PHONY: lock
lock: venv ## Write requirements.lock anew from the pyproject.toml files
	$(UV) pip compile --quiet --python-version 3.11 --python-platform x86_64-manylinux_2_36 \
	  operator/pyproject.toml analysis/pyproject.toml --group pyproject.toml:dev --group pyproject.toml:jupyter \
	  --generate-hashes --no-emit-index-url --no-header --no-annotate -o requirements.lock
