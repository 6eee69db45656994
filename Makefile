# Bare `make` explains itself.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready

.DEFAULT_GOAL := help
.PHONY: help install demo test slow check format clean

help:  ## Show this list
	@echo "Heldout: memorization, influence and consistency of training examples."
	@echo
	@grep -E '^[a-z]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z]+):.*## (.*)/  make \1\t\2/' | expand -t 18
	@echo
	@echo "The programs live in scripts/; each explains itself: $(BIN)/python -m scripts.train_runs --help"

install: $(READY)  ## Create .venv and install the package into it

$(READY): setup.py pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Heldout needs Python 3.11 or newer; name one: make PYTHON=python3.11")'
	@echo "Creating $(VENV) and installing into it (TensorFlow alone is 0.6 GB; once only)"
	@$(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip install --quiet --upgrade pip
	@PYTHONWARNINGS=ignore $(BIN)/python -m pip install --quiet --editable '.[dev]'
	@touch $(READY)

demo: $(READY)  ## Train 640 small networks on digits, score them, write the report (minutes on two cores)
	$(BIN)/python -m scripts.demo

test: $(READY)  ## Run the tests
	$(BIN)/python -m pytest -n auto --dist loadfile

slow: $(READY)  ## Run the slow tests too
	$(BIN)/python -m pytest -n auto --dist loadfile -m 'slow or not slow'

check: $(READY)  ## Lint, formatting and types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: $(READY)  ## Rewrite the sources in the house format
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean:  ## Remove .venv and caches; keeps demo/
	rm -rf $(VENV) build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
