# make train   trains and tests MedT on synthetic glands; ARGS="seed=1" adds overrides
# make test    runs the tests
# make test-fast  runs those of the parts that take no seconds: in less than a minute
# make test-all  the slow ones, too, and all of what make test takes a part of
# make coverage  runs those of the parts, and says which lines they leave out
# make test-faults  kills, fills disks and cuts power, 50 times and at every file operation
# make docs    writes the pages of docs/ into site/
# make lint    runs ruff and mypy, and asks pip whether the installed versions fit together
# make constraints  writes the versions of constraints/; commit them when make test has passed
# make audit   asks for known faults of the tested versions; needs the network
PYTHON ?= python3
BIN := .venv/bin
BUILD := pyproject.toml setup.py $(wildcard medt/ops/kernel/*)
FLOOR := 83
RUN := runs/synthetic/medt/$(shell date +%Y-%m-%d_%H-%M-%S)

.PHONY: train docs test test-fast test-all coverage test-faults lint constraints audit
.DELETE_ON_ERROR:

train: .venv/installed
	$(BIN)/python scripts/train.py experiment=quickstart run_dir=$(RUN) $(ARGS)
	$(BIN)/python scripts/evaluate.py checkpoint=$(RUN) split=test

test: .venv/installed-dev
	$(BIN)/python -m pytest $(ARGS)

test-fast: .venv/installed-dev
	$(BIN)/python -m pytest tests/unit tests/test_house.py -m "not seconds and not shared" $(ARGS)

docs: .venv/installed-dev
	$(BIN)/python -m mkdocs build --strict

test-all: .venv/installed-dev
	MEDT_TESTS=all $(BIN)/python -m pytest $(ARGS)

coverage: .venv/installed-dev
	$(BIN)/python -m pytest tests/unit tests/test_house.py --cov --cov-report=term --cov-report=html --cov-fail-under=$(FLOOR) $(ARGS)

test-faults: .venv/installed-dev
	MEDT_FAULTS=all $(BIN)/python -m pytest tests/faults $(ARGS)
	PYTHONPATH=scripts $(BIN)/python tests/faults/long_run.py
	$(BIN)/python tests/faults/kill_training.py

lint: .venv/installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/pip check

# Which CUDA packages fit is PyTorch's own business; elsewhere there are none.
constraints: .venv/installed-dev
	{ echo "# The lower bounds of pyproject.toml, for Python 3.10 and 3.11: make constraints"; \
	  sed -nE "s/^ +\"([A-Za-z0-9_-]+)[>=]=([0-9.]+)[^;\"]*(;[^\"]*)?\".*/\1==\2\3/p" pyproject.toml | \
	  LC_ALL=C sort -f; } > constraints/lowest.txt
	{ echo "# What the tests passed with, for Python 3.11 and newer: make constraints"; \
	  $(BIN)/pip freeze --exclude-editable | grep -vE '^(cuda|nvidia|triton)' | \
	  sed 's/+.*//'; } > constraints/tested.txt

audit: .venv/audit/bin/pip-audit
	$< --strict --no-deps --disable-pip --requirement constraints/tested.txt $(ARGS)

.venv/audit/bin/pip-audit: | .venv/bin/python
	$(BIN)/python -m venv .venv/audit
	.venv/audit/bin/pip install --quiet pip-audit

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
