# carray's set-up, demo and checks. Needs Python 3.11 to 3.13, git and make; nothing else.
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.PHONY: help install demo test test-e2e chaos four-ways lint format-check types layers unit unit-ray unit-half unit-rest oldest format lock bench clean

BIN := .venv/bin
STAMP := .venv/.installed
PYTHON ?=
PYTHONS := $(if $(PYTHON),"$(PYTHON)",python3.13 python3.12 python3.11 python3 python)
WANTED := Python 3.11, 3.12 or 3.13 with venv and pip
LACKING := $(if $(PYTHON),PYTHON=$(PYTHON) is no $(WANTED),no $(WANTED) is on the PATH)
TESTS ?= tests
# the other tests run in two halves that take as long
HALF := $(if $(filter tests,$(TESTS)),$(addprefix tests/,analysis export models tracking training))
export PYTHONDONTWRITEBYTECODE :=  # else each of the tests' processes would compile carray anew

help:  ## Show this help.
	@grep -E '^[a-z0-9-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z0-9-]+):.*## (.*)/  make \1\t\2/' | expand -t 22

demo: install  ## Render toy cars, search, refit, ensemble, draw the picture of the study.
	@$(BIN)/carray demo

test: install lint format-check layers  ## Everything that must hold before a change goes in.
	@echo "make: types beside the tests in three runs; what two of these say comes when they end"
	@$(MAKE) --no-print-directory -j4 types unit-ray unit-half unit-rest
	@echo "make test: all is well"

test-e2e: install  ## The page in a headless Chromium, Debian's where apt may install it.
	@if [ -z "$${CHROMIUM:-}" ] && ! command -v chromium >/dev/null; then \
	  if [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null && apt-get -qq update; then \
	    echo "make: installing Chromium from Debian's packages (about 100 MB, once)"; \
	    DEBIAN_FRONTEND=noninteractive apt-get -qq install -y --no-install-recommends chromium \
	      >/dev/null || echo "make: apt can't install Chromium: the tests of the page are skipped" >&2; \
	  else \
	    echo "make: no Chromium, and apt may not be used: the tests of the page are skipped;" \
	      "install it, or name one: make test-e2e CHROMIUM=/path" >&2; \
	  fi; \
	fi
	@$(BIN)/pytest -m e2e tests/e2e

SEEDS ?= 1
TRIALS ?= 24
chaos: install  ## A study under faults on nodes of namespaces, 8 minutes a seed; SEEDS="1 2" TRIALS=24
	@$(BIN)/python -m tests.chaos --seeds $(SEEDS) --trials $(TRIALS)

four-ways: install  ## The same study on one machine and on three nodes, compared to the bit; a quarter of an hour
	@$(BIN)/python -m tests.chaos.four_ways

install: $(STAMP)  ## Make .venv from requirements.lock (about 6 GB, once).
	@$(if $(PYTHON),if [ "$$($(BIN)/python -V)" != "$$("$(PYTHON)" -V)" ]; then \
	  echo "make: .venv has $$($(BIN)/python -V) and PYTHON=$(PYTHON) another: remove .venv first" >&2; \
	  exit 2; fi)

$(STAMP): requirements.lock pyproject.toml
	@if [ ! -x $(BIN)/python ]; then \
	  for name in $(PYTHONS); do \
	    if command -v "$$name" >/dev/null && "$$name" -c 'import sys, venv, ensurepip; \
	      sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' 2>/dev/null; \
	    then found="$$name"; break; fi; \
	  done; \
	  if [ -z "$${found:-}" ]; then \
	    echo "make: $(LACKING); install one, or name it:" \
	      "make $(MAKECMDGOALS) PYTHON=/path/to/python3.12" >&2; exit 2; \
	  fi; \
	  echo "make: new environment in .venv with $$("$$found" --version)"; \
	  "$$found" -m venv .venv; \
	fi
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check 'uv>=0.5'
	@echo "make: installing what requirements.lock lists (about 6 GB, one to several minutes)"
	@VIRTUAL_ENV="$(CURDIR)/.venv" $(BIN)/uv pip install --require-hashes -r requirements.lock
	@VIRTUAL_ENV="$(CURDIR)/.venv" $(BIN)/uv pip install --no-deps --no-build-isolation -e .
	@touch $@

lint: install  ## ruff's rules.
	@$(BIN)/ruff check

format-check: install  ## ruff's format; `make format` mends it.
	@$(BIN)/ruff format --check

types: install  ## mypy --strict.
	@nice $(BIN)/mypy

layers: install  ## Imports go down only.
	@$(BIN)/lint-imports

unit: install  ## The tests; TESTS=tests/search runs some of them.
	@echo "make: three runs side by side; what the other two say comes when they end"
	@$(MAKE) --no-print-directory -j3 unit-ray unit-half unit-rest

# pytest ends with 5 where TESTS has none of a kind
collected = log=$$(mktemp); code=0; $(1) >"$$log" 2>&1 || code=$$?; \
	  [ $$code = 5 ] && code=0 || cat "$$log"; rm "$$log"; exit $$code

unit-ray: install  # they mostly wait, and say so if they wait too long: the others give way
	@$(call collected,RAY_worker_niceness=0 $(BIN)/pytest -m ray $(TESTS))

unit-half: install
	@$(if $(HALF),$(call collected,nice $(BIN)/pytest -m "not ray and not e2e" $(HALF)))

unit-rest: install
	@nice $(BIN)/pytest -m "not ray and not e2e" $(TESTS) $(addprefix --ignore=,$(HALF)) || [ $$? = 5 ]

OLDEST := .venv-oldest
oldest: install  ## The tests without Ray with the oldest libraries that pyproject.toml allows (6 GB more).
	@[ -x $(OLDEST)/bin/python ] || $(BIN)/uv venv --python 3.11 $(OLDEST)
	@VIRTUAL_ENV="$(CURDIR)/$(OLDEST)" $(BIN)/uv pip install --resolution lowest-direct \
	  -e '.[postgres,export,openvino,serve,dev]'
	@$(OLDEST)/bin/pytest -m "not ray and not e2e" -o filterwarnings=default $(TESTS)

format: install  ## Mend format and what ruff can mend.
	@$(BIN)/ruff check --fix
	@$(BIN)/ruff format

lock: install  ## Write requirements.lock anew from pyproject.toml.
	@$(BIN)/uv pip compile --universal --generate-hashes --all-extras --python-version 3.11 \
	  --no-header --no-annotate --quiet pyproject.toml -o requirements.lock

clean:  ## Remove caches and the demo's folder; studies under runs/ and .venv stay.
	@rm -rf build dist demo .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .hypothesis
	@find carray tests jobs -name __pycache__ -type d -prune -exec rm -rf {} +

bench: install  ## Speed: tables with ratios, in about an hour.
	@$(BIN)/python tests/benchmarks/bench_input.py
	@$(BIN)/python tests/benchmarks/bench_trial.py
	@$(BIN)/python tests/benchmarks/bench_step.py
	@$(BIN)/python tests/benchmarks/bench_lanes.py --workers 1
	@$(BIN)/python tests/benchmarks/bench_lanes.py --workers 2
	@$(BIN)/python tests/benchmarks/bench_head_only.py
	@$(BIN)/python tests/benchmarks/bench_ensemble.py
	@$(BIN)/python tests/benchmarks/bench_driver.py --epochs 10 --rounds 2
	@$(BIN)/python tests/benchmarks/bench_growth.py memory
	@$(BIN)/python tests/benchmarks/bench_growth.py trials
	@$(BIN)/python tests/benchmarks/bench_growth.py images
