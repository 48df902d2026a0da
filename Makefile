PYTHON ?= python3
# One environment per interpreter, so `make test PYTHON=python3.12` never reuses another's.
VENV ?= $(if $(filter python3,$(PYTHON)),.venv,.venv-$(notdir $(PYTHON)))
AGENT ?=
TASK ?=
LOGDIR ?= runs/quickstart
# One worker per core: the suite's time is compilation, which keeps one core busy.
TEST_WORKERS ?= -n auto --dist worksteal
BIN := $(VENV)/bin
INSTALL := $(BIN)/python -m pip install --quiet --disable-pip-version-check

.PHONY: quickstart test test-all test-matrix lint docs clean

# The stamp depends on setup.py, so a changed pin reinstalls and an unchanged one costs nothing. The
# second line matters on Python 3.13 only, where setup.py cannot ask for dm_control.
$(VENV)/.installed: setup.py
	$(PYTHON) -m venv $(VENV)
	$(INSTALL) -e '.[dev]'
	$(INSTALL) --no-deps dm_control==1.0.50
	touch $@

# A task of an optional suite brings its extra along: make quickstart TASK=gym:InvertedPendulum-v5
SUITE := $(firstword $(subst :, ,$(TASK)) $(if $(filter stream_ac,$(AGENT)),gym))
EXTRA := $(filter atari gym envpool playground,$(SUITE))

quickstart: $(VENV)/.installed
	$(if $(EXTRA),$(INSTALL) -e '.[$(EXTRA)]')
	$(BIN)/python -m experiments.quickstart $(if $(AGENT),--agent=$(AGENT)) $(if $(TASK),--task=$(TASK)) --logdir=$(LOGDIR)

test: $(VENV)/.installed
	$(BIN)/python -m pytest $(TEST_WORKERS) $(PYTEST_ARGS)

test-all: $(VENV)/.installed
	$(BIN)/python -m pytest $(TEST_WORKERS) -m ''

# The default tests on every supported Python and jax; PYTEST_ARGS="tests/replay -x" for a part.
# A Python that is not installed is a failure unless ALLOW_MISSING=1.
test-matrix:
	PYTEST_ARGS='$(PYTEST_ARGS)' .ci/matrix

lint: $(VENV)/.installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/ty check --python $(BIN)/python

# The handbook with the API reference, in site/; a warning is an error.
docs: $(VENV)/.installed
	$(INSTALL) -e '.[docs]'
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet

clean:
	rm -rf $(VENV) .venv-py* site build *.egg-info .pytest_cache .ruff_cache .hypothesis .test_programs
