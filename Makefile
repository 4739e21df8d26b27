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

.PHONY: help up demo web install install-lake install-mcp install-traces install-test test test-unit test-slow test-long faults faults-rounds test-web test-browser bench-web screenshots lint types imports supply audit check openapi helm bench soak lock clean

help: ## list the commands
	@grep -E '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## /  make \1\t/' | expand -t 24

# The page is built where npm is and the build is older than its sources. Without npm, or without a registry, all else runs:
# the page's place then says what is missing.
PAGE := command -v npm >/dev/null || { test -f web/dist/index.html || echo "npm is not here: starting without the page"; exit 0; }; \
	$(MAKE) --no-print-directory --silent web || echo "The page could not be built: starting without it, or with the one that is there."

up: install ## start everything on http://127.0.0.1:8080 (PORT=…, DATA=directory)
	@$(PAGE)
	@exec $(BIN)/logfeed up --port $(PORT) --data $(DATA)

demo: install ## like up, with lively sample traffic
	@$(PAGE)
	@exec $(BIN)/logfeed demo --port $(PORT) --data $(DATA)

web: web/dist/index.html ## build the page into web/dist, where it is older than its sources (needs Node.js 20.19 and npm)

web/node_modules/.installed: web/package-lock.json
	@echo "Installing what the page is built with …"
	@cd web && npm ci --ignore-scripts --silent
	@touch $@

web/dist/index.html: web/node_modules/.installed $(shell find web -type f -not -path 'web/node_modules/*' -not -path 'web/dist/*' -not -path 'web/e2e/*' -not -path 'web/bench/*' -not -path 'web/screenshots/*')
	cd web && npm run --silent build

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

$(VENV)/.installed-mcp: $(VENV)/.installed requirements-mcp.lock
	@$(BIN)/python -m pip install --quiet --require-hashes -r requirements-mcp.lock
	@touch $@

$(VENV)/.installed-traces: $(VENV)/.installed requirements-traces.lock
	@$(BIN)/python -m pip install --quiet --require-hashes -r requirements-traces.lock
	@touch $@

$(VENV)/.installed-long: $(VENV)/.installed-test requirements-long.lock
	@echo "Installing Spark …"
	@$(BIN)/python -m pip install --quiet --require-hashes -r requirements-long.lock
	@touch $@

install: $(VENV)/.installed

install-mcp: $(VENV)/.installed-mcp ## install what `logfeed mcp` needs besides

install-traces: $(VENV)/.installed-traces ## install what `tracing.endpoint` needs besides

install-lake: $(VENV)/.installed-lake ## install what `logfeed lake` needs besides

install-test: $(VENV)/.installed-test

test: install-test ## install what the tests need, real Kafka and TimescaleDB included, and run them (≤ 20 minutes)
	$(BIN)/python -m pytest -n $(WORKERS) --dist worksteal --durations 30 --durations-min 10 -m "not long and not slow" tests

test-slow: install-test ## the tests that take half a minute or more each; CI runs them too
	$(BIN)/python -m pytest -n $(WORKERS) --dist worksteal --durations 10 --durations-min 10 -m "slow and not long" tests

test-unit: install-test ## only the tests that need no service (seconds)
	LOGFEED_TEST_NO_SERVICES=1 $(BIN)/python -m pytest -n $(WORKERS) tests/unit

test-long: $(VENV)/.installed-long ## the tests that take minutes each
	$(BIN)/python -m pytest -m long --timeout 3600 tests

ROUNDS ?= 500
SEED ?= 1
AS_ASKED := LOGFEED_FAULT_ROUNDS=$(ROUNDS) LOGFEED_FAULT_SEED=$(SEED)

faults: install-test ## every fault of tests/faults/TABLE.md, and random rounds on both profiles, three hours (ROUNDS=500, SEED=1)
	$(AS_ASKED) $(BIN)/python -m pytest -n $(WORKERS) --dist worksteal --timeout 3600 $$($(BIN)/python -m tests.faults.table)

faults-rounds: install-test ## random rounds of faults alone: ROUNDS=500 from SEED=1; a round that failed again: SEED=its, ROUNDS=1
	$(AS_ASKED) $(BIN)/python -m pytest -s -m long tests/faults/test_random_rounds.py

test-web: web ## the page: types, style, licences, unit tests, bytes
	cd web && npm run --silent check && npm test --silent && npm run --silent budget

test-browser: install web ## the page in a real browser over a real Logfeed (installs Debian's Chromium where there is none)
	infra/native/chromium.sh
	cd web && npm run --silent test:browser

bench-web: install web ## how fast the page is, over a million rows in a real browser, 20 minutes (ROWS=…, RUNS=…, LIVE_S=…)
	infra/native/chromium.sh
	cd web && npm run --silent bench

screenshots: install web ## docs/images anew: the page over sample traffic
	infra/native/chromium.sh
	cd web && npm run --silent screenshots

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
	for lock in requirements.lock requirements-lake.lock requirements-mcp.lock requirements-traces.lock requirements-test.lock; do .audit/bin/pip-audit --strict --disable-pip --require-hashes -r $$lock || exit 1; done

openapi: install-test ## write schemas/*.json anew
	$(BIN)/python -m cli.openapi schemas/openapi.json
	$(BIN)/python -m cli.schema_documents schemas
	if [ -d web/node_modules ]; then cd web && npm run --silent types; fi

helm: install-test ## render the Helm chart into tests/data/helm (compiles helm with Go where there is none)
	$(BIN)/python -m infra.helm_chart

bench: install-test ## how fast it is, everything running at once, 20 minutes (BENCH=--quick: three, BENCH=--help)
	$(BIN)/python -m bench $(BENCH)

MINUTES ?= 60
RATE ?= 20000

soak: install-test ## whether it holds: an hour at 20,000 logs/s, memory, lag, freshness, disk, a verdict (MINUTES=…, RATE=…)
	$(BIN)/python -m bench.soak --minutes $(MINUTES) --rate $(RATE)

LOCK := $(BIN)/uv pip compile -q --generate-hashes --no-emit-index-url --no-header --python-version 3.11 --universal $(UPGRADE)

lock: $(BIN)/python ## resolve the lock files anew from pyproject.toml
	@$(BIN)/python -m pip install --quiet uv
	$(LOCK) --extra build pyproject.toml -o requirements.lock
	$(LOCK) -c requirements.lock --extra build --extra lake --extra mcp --extra traces --extra test pyproject.toml -o requirements-test.lock
	$(LOCK) -c requirements-test.lock --extra build --extra lake pyproject.toml -o requirements-lake.lock
	$(LOCK) -c requirements-test.lock --extra build --extra mcp pyproject.toml -o requirements-mcp.lock
	$(LOCK) -c requirements-test.lock --extra build --extra traces pyproject.toml -o requirements-traces.lock
	$(LOCK) -c requirements-test.lock --extra long pyproject.toml -o requirements-long.lock

clean: ## remove the environment and caches of the checkout (never data)
	rm -rf $(VENV) web/node_modules web/dist .audit .mypy_cache .ruff_cache .import_linter_cache .hypothesis
