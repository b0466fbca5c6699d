# Two commands do everything on a fresh machine: `make run` and `make test`.
# PYTHON is any Python from 3.11 up; everything else is set up below.
PYTHON ?= python3
V := .venv/bin
NPROC := $(shell getconf _NPROCESSORS_ONLN)
.DEFAULT_GOAL := help
.PHONY: help setup run lab test test-full test-built test-kind bench lint type format notebooks lock clean

help:  ## list the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## (.*)/  make \1\t\2/' | expand -t 20

setup:  ## make .venv (done by every other target when it is needed)
	@$(PYTHON) tools/setup.py

run: setup  ## bring the lab up, execute the notebooks, leave a report in build/, stop the lab
	@$(V)/labkit doctor
	@$(V)/labkit run --out build

lab: setup  ## JupyterLab with the lab up
	@$(V)/labkit jupyter

test: setup lint type  ## all tests that need nothing compiled but toxiproxy
	@$(V)/python tools/prefetch.py
	$(V)/python -m pytest -m "not full and not bench and not kind" --cov --cov-report=term:skip-covered

test-full: test-built test-kind  ## the tests that need something built once

test-built: setup  ## of these, what is built is Jaeger, OpenSearch and Prometheus 3
	$(V)/python -m pytest -m full

test-kind: setup  ## of these, what is built is a node of Kubernetes and the images of the lab
	@$(V)/python -m tests.kind.rig images > /dev/null
	@$(V)/python -m tests.kind

bench: setup  ## measure what the issues give numbers for: a table and build/bench.json
	@$(V)/python -m tests.bench

lint: setup  ## ruff, notebooks included; the directions between rooms; notebook drift
	@$(V)/ruff check .
	@$(V)/ruff format --check .
	@$(V)/lint-imports
	@$(V)/labkit notebooks check

type: setup  ## mypy, strict
	@$(V)/mypy

format: setup  ## let ruff format and fix what it can
	@$(V)/ruff check --fix .
	@$(V)/ruff format .

notebooks: setup  ## generate both editions of every notebook, and the dashboards, from their sources
	@$(V)/labkit notebooks build
	@$(V)/python -m labkit.observe.dashboards

lock: setup  ## renew constraints.txt from pyproject.toml
	@$(V)/uv pip compile pyproject.toml --extra dev --universal --python-version 3.11 -q --no-header --no-annotate --upgrade -o constraints.txt

clean:  ## remove what was generated here; components in the cache stay
	rm -rf build dist .venv .mypy_cache .ruff_cache .pytest_cache .hypothesis .coverage .coverage.* .import_linter_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
