# The whole project from one place. Needs Python >= 3.11 with venv, make and a package index; no root, no compiler.
#
#   make report                                  measure this machine, then read results/report.html
#   make report CONFIG=experiments/mine.yaml     the same for another experiment
#   make report ARGS="--config campaign=night"   any other words for Snakemake
#   make test ARGS="-k merge"                    any other words for pytest

AT_LEAST_3_11 = -c 'import sys; sys.exit(sys.version_info < (3, 11))'
PYTHON ?= $(shell for name in python3 python3.14 python3.13 python3.12 python3.11 python; do \
	"$$name" $(AT_LEAST_3_11) 2>/dev/null && echo "$$name" && break; done)
VENV ?= .venv
PROFILE ?= profiles/local
CONFIG ?=
ARGS ?=

PIP = $(VENV)/bin/python -m pip install -qq --disable-pip-version-check --no-build-isolation
SNAKEMAKE = $(VENV)/bin/python -m snakemake --profile $(PROFILE) $(if $(CONFIG),--configfile $(CONFIG))

.DEFAULT_GOAL := help
.PHONY: help env plan report compare verify test lint format clean distclean

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "make %-10s %s\n", $$1, $$2 }' $(firstword $(MAKEFILE_LIST))

env: $(VENV)/.locked ## create the environment from envs/lock.txt

plan: env ## print the points of the experiment and what they will cost; runs nothing else
	$(SNAKEMAKE) plan $(ARGS)

report: env ## measure, draw, and write results/report.html and results/report.zip
	$(SNAKEMAKE) --report results/report.html --report-after-run $(ARGS)
	$(SNAKEMAKE) --report results/report.zip --quiet all $(ARGS)

compare: env ## compare with the campaigns named under report.compare of the experiment
	$(SNAKEMAKE) compare $(ARGS)

verify: env ## walk every figure back to its records and logs; fails on a gap
	$(SNAKEMAKE) verify $(ARGS)

test: $(VENV)/.tested ## set up and run all tests
	$(VENV)/bin/python -m pytest $(or $(ARGS),-n 2 --no-loadscope-reorder)

lint: $(VENV)/.tested ## check style: ruff, snakefmt, snakemake --lint
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/snakefmt --check Snakefile workflow
	$(VENV)/bin/python -m snakemake --lint

format: $(VENV)/.tested ## put all files into the house's style
	$(VENV)/bin/ruff check --fix .
	$(VENV)/bin/ruff format .
	$(VENV)/bin/snakefmt Snakefile workflow

clean: ## remove the results, measurements included, and Snakemake's notes about them
	rm -rf results .snakemake

distclean: clean ## also remove the environment
	rm -rf $(VENV)

# Both are stamps: they are renewed when what they were made from changes.
$(VENV)/.locked: envs/lock.txt pyproject.toml
	@"$(PYTHON)" $(AT_LEAST_3_11) 2>/dev/null || { \
		echo "make: '$(PYTHON)' is not Python 3.11 or newer; name one that is: make PYTHON=/path/to/python3" >&2; exit 1; }
	@echo "setting up $(VENV) (about a minute)"
	"$(PYTHON)" -m venv $(VENV)
	$(PIP) "$$(grep '^setuptools==' envs/lock.txt)"
	$(PIP) --requirement envs/lock.txt
	$(PIP) --no-deps --editable .
	touch $@

$(VENV)/.tested: $(VENV)/.locked envs/test.txt
	$(PIP) --requirement envs/test.txt
	touch $@
