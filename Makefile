# Two targets set everything up by themselves: `make demo` and `make test`.
PYTHON ?= $(shell command -v python3.11 || command -v python3)
VENV := .venv
BIN := $(VENV)/bin
DEMO := build/demo

.PHONY: demo test lint types tests all-tests demo-checkpoints speed clean

demo: $(VENV)/.demo
	$(BIN)/sar-eval run shapes --ckpt demo:sft

test: $(VENV)/.dev lint types all-tests

lint: $(VENV)/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(VENV)/.dev
	$(BIN)/mypy

tests: $(VENV)/.dev
	$(BIN)/pytest

all-tests: $(VENV)/.dev
	$(BIN)/pytest -m "slow or not slow"

speed: $(VENV)/.demo
	$(BIN)/python benchmarks/speed/shapes.py

$(VENV)/.venv:
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	touch $@

$(VENV)/.demo: $(VENV)/.venv pyproject.toml constraints.txt
	$(BIN)/pip install --quiet --constraint constraints.txt --editable .
	touch $@

$(VENV)/.dev: $(VENV)/.demo
	$(BIN)/pip install --quiet --constraint constraints.txt --editable '.[dev]'
	touch $@

# The shipped demo checkpoints from nothing; see docs/demo-checkpoints.md for times and curves.
demo-checkpoints: $(VENV)/.dev
	PATH="$(CURDIR)/$(BIN):$$PATH" sh scripts/demo-checkpoints.sh $(DEMO)

clean:
	rm -rf $(VENV) build runs
