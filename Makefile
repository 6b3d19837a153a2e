# make train   trains and tests MedT on synthetic glands; ARGS="seed=1" adds overrides
# make test    runs the tests
# make test-faults  kills, fills disks and cuts power, 50 times and at every file operation
# make lint    runs ruff and mypy
PYTHON ?= python3
BIN := .venv/bin
BUILD := pyproject.toml setup.py $(wildcard medt/ops/kernel/*)
RUN := runs/synthetic/medt/$(shell date +%Y-%m-%d_%H-%M-%S)

.PHONY: train test test-faults lint
.DELETE_ON_ERROR:

train: .venv/installed
	$(BIN)/python scripts/train.py experiment=quickstart run_dir=$(RUN) $(ARGS)
	$(BIN)/python scripts/evaluate.py checkpoint=$(RUN)/checkpoints/best.pt split=test

test: .venv/installed-dev
	$(BIN)/python -m pytest $(ARGS)

test-faults: .venv/installed-dev
	MEDT_FAULTS=all $(BIN)/python -m pytest tests/faults $(ARGS)
	PYTHONPATH=scripts $(BIN)/python tests/faults/long_run.py
	$(BIN)/python tests/faults/kill_training.py

lint: .venv/installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

.venv/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' || \
		{ echo "error: $(PYTHON) is older than 3.10 (choose another: make PYTHON=python3.12)"; exit 1; }
	$(PYTHON) -m venv .venv

.venv/installed: $(BUILD) | .venv/bin/python
	$(BIN)/pip install --quiet --editable .
	touch $@

.venv/installed-dev: $(BUILD) | .venv/bin/python
	$(BIN)/pip install --quiet --editable '.[dev]'
	touch $@
