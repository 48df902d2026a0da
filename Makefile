PYTHON ?= python3
# One environment per interpreter, so `make test PYTHON=python3.12` never reuses another's.
VENV ?= $(if $(filter python3,$(PYTHON)),.venv,.venv-$(notdir $(PYTHON)))
TASK ?= dmc:cartpole-swingup
LOGDIR ?= runs/quickstart
# One worker per core: the suite's time is compilation, which keeps one core busy.
TEST_WORKERS ?= -n auto --dist worksteal
BIN := $(VENV)/bin

.PHONY: quickstart test test-all lint clean

# The stamp depends on setup.py, so a changed pin reinstalls and an unchanged one costs nothing.
$(VENV)/.installed: setup.py
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[dev]'
	touch $@

quickstart: $(VENV)/.installed
	$(BIN)/python -m experiments.quickstart --task=$(TASK) --logdir=$(LOGDIR)

test: $(VENV)/.installed
	$(BIN)/python -m pytest $(TEST_WORKERS)

test-all: $(VENV)/.installed
	$(BIN)/python -m pytest $(TEST_WORKERS) -m ''

lint: $(VENV)/.installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

clean:
	rm -rf $(VENV) build *.egg-info .pytest_cache .ruff_cache .hypothesis
