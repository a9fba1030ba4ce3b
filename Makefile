# HullWorks: `make demo` shows it at work, `make test` checks all of it, `make help` lists the rest.
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.PHONY: help demo venv test lint lock clean

export VENV ?= .venv
export PYTHON ?= python3
# Further arguments for `hullworks demo` and for pytest: make test TESTS="tests/workflows -m 'not slow'"
DEMO ?=
TESTS ?=

help: ## List these targets
	@grep -hE '^[a-z]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z]+):.*## (.*)$$/  make \1\t\2/' | expand -t 14

demo: ## Set up, then take the demonstration batch from file to hull with real pw.x runs
	@scripts/bootstrap.sh runtime
	@$(VENV)/bin/hullworks demo $(DEMO)

venv: ## Set up the virtual environment with the tools of development
	@scripts/bootstrap.sh dev

test: ## Lint, build and run every test (as root it installs missing Debian packages)
	@scripts/system_packages.sh
	@scripts/bootstrap.sh dev
	@scripts/check.sh all $(TESTS)

lint: venv ## ruff, mypy and the layers of the rooms
	@scripts/check.sh lint

lock: ## Write requirements/*.lock anew from pyproject.toml (UPGRADE=1 takes the newest versions)
	@scripts/lock.sh $(if $(UPGRADE),--upgrade)

clean: ## Remove what builds and checks leave behind; keeps the environment and all results
	@rm -rf dist build .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis
	@find hullworks workflows launchers analysis tests scripts -name __pycache__ -type d -prune -exec rm -rf {} +
