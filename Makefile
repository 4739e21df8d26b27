# The commands of the project. `make help` lists them.
SHELL := /bin/bash
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
CACHE := $(or $(XDG_CACHE_HOME),$(HOME)/.cache)/logfeed
DATA ?= logfeed-data
PORT ?= 8080
WORKERS ?= 3
BENCH ?=
export PIP_DISABLE_PIP_VERSION_CHECK := 1
# Compiled modules halve the start of every process, also where the environment asks for none.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: help up demo install install-lake install-test test test-unit test-long lint types imports supply audit check openapi bench lock clean

help: ## list the commands
	@grep -E '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## /  make \1\t/' | expand -t 24

up: install ## start everything on http://127.0.0.1:8080 (PORT=…, DATA=directory)
	@exec $(BIN)/logfeed up --port $(PORT) --data $(DATA)

demo: install ## like up, with lively sample traffic
	@exec $(BIN)/logfeed demo --port $(PORT) --data $(DATA)

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "Logfeed needs Python 3.11 or newer: make PYTHON=python3.12 $(MAKECMDGOALS)"; exit 1; }
	$(PYTHON) -m venv $(VENV)

$(VENV)/.installed: $(BIN)/python requirements.lock pyproject.toml
	@echo "Installing Logfeed into $(VENV) …"
	@$(BIN)/python -m pip install --quiet --require-hashes -r requirements.lock
	@$(BIN)/python -m pip install --quiet --no-deps --no-build-isolation --editable .
	@touch $@

$(VENV)/.installed-test: $(VENV)/.installed requirements-test.lock
	@echo "Installing what the tests need …"
	@$(BIN)/python -m pip install --quiet --require-hashes -r requirements-test.lock
	@touch $@

$(VENV)/.installed-lake: $(VENV)/.installed requirements-lake.lock
	@$(BIN)/python -m pip install --quiet --require-hashes -r requirements-lake.lock
	@touch $@

$(VENV)/.installed-long: $(VENV)/.installed-test requirements-long.lock
	@echo "Installing Spark …"
	@$(BIN)/python -m pip install --quiet --require-hashes -r requirements-long.lock
	@touch $@

install: $(VENV)/.installed

install-lake: $(VENV)/.installed-lake ## install what `logfeed lake` needs besides

install-test: $(VENV)/.installed-test

test: install-test ## install what the tests need, real Kafka and TimescaleDB included, and run all of them (≤ 20 minutes)
	$(BIN)/python -m pytest -n $(WORKERS) --dist worksteal --durations 30 --durations-min 10 -m "not long" tests

test-unit: install-test ## only the tests that need no service (seconds)
	LOGFEED_TEST_NO_SERVICES=1 $(BIN)/python -m pytest -n $(WORKERS) tests/unit

test-long: $(VENV)/.installed-long ## the tests that take minutes each
	$(BIN)/python -m pytest -m long --timeout 3600 tests

lint: install-test ## style
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: install-test ## strict type check
	$(BIN)/mypy

imports: install-test ## who may import whom
	$(BIN)/lint-imports

supply: install-test ## locks, licences, no secret in any file
	LOGFEED_TEST_NO_SERVICES=1 $(BIN)/python -m pytest -q tests/unit/test_supply.py

check: lint types imports supply ## everything static

audit: ## known vulnerabilities of what is locked; fails where nobody can be asked
	@$(PYTHON) -m venv .audit
	@.audit/bin/python -m pip install --quiet pip-audit==2.10.1
	for lock in requirements.lock requirements-lake.lock requirements-test.lock; do .audit/bin/pip-audit --strict --disable-pip --require-hashes -r $$lock || exit 1; done

openapi: install-test ## write schemas/*.json anew
	$(BIN)/python -m cli.openapi schemas/openapi.json
	$(BIN)/python -m cli.schema_documents schemas

bench: install-test ## how fast it is, everything running at once, 20 minutes (BENCH=--quick: three, BENCH=--help)
	$(BIN)/python -m bench $(BENCH)

LOCK := $(BIN)/uv pip compile -q --generate-hashes --no-emit-index-url --no-header --python-version 3.11 --universal $(UPGRADE)

lock: $(BIN)/python ## resolve the lock files anew from pyproject.toml
	@$(BIN)/python -m pip install --quiet uv
	$(LOCK) --extra build pyproject.toml -o requirements.lock
	$(LOCK) -c requirements.lock --extra build --extra lake --extra test pyproject.toml -o requirements-test.lock
	$(LOCK) -c requirements-test.lock --extra build --extra lake pyproject.toml -o requirements-lake.lock
	$(LOCK) -c requirements-test.lock --extra long pyproject.toml -o requirements-long.lock

clean: ## remove the environment and caches of the checkout (never data)
	rm -rf $(VENV) .audit .mypy_cache .ruff_cache .import_linter_cache .hypothesis
