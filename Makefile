# Few doors, the same for people and CI. `make` alone prints them.
# Needs Python 3.11 or later and nothing else; PYTHON=python3.12 names one. Packages come from pip's own index.

PYTHON ?= python3
PROMPT ?= Why is the sky blue? Answer in two sentences.
VENV := .venv
LIVE := .venv-live
export PROMPT
export PIP_DISABLE_PIP_VERSION_CHECK := 1

.PHONY: help setup chat test test-slow test-live check clean

help: ## print this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-10s %s\n", $$1, $$2 }' $(firstword $(MAKEFILE_LIST))

setup: $(VENV)/.ready-dev ## build .venv with everything for tests and checks

chat: $(VENV)/.ready ## fetch the demo model if needed and answer PROMPT="..."
	@$(VENV)/bin/phi4mini run -m demo -q f32 --kv f32 "$$PROMPT" </dev/null

test: $(VENV)/.ready-dev ## run the whole test suite but what is slow or live
	$(VENV)/bin/python -m pytest

test-slow: $(VENV)/.ready-dev ## run the tests that take minutes each
	$(VENV)/bin/python -m pytest -m slow

test-live: $(LIVE)/.ready ## compare with Transformers anew, in an environment with torch (.venv-live)
	$(LIVE)/bin/python -m pytest -m "not slow" tests/live

check: $(VENV)/.ready-dev ## ruff and mypy
	$(VENV)/bin/ruff check
	$(VENV)/bin/mypy

clean: ## remove what make built; models stay in the cache (phi4mini ls, phi4mini rm)
	rm -rf $(VENV) $(LIVE) .pytest_cache .mypy_cache .ruff_cache .hypothesis dist build

# A stamp file says that an environment is complete; a change of pyproject.toml brings it up to date.

$(VENV)/.ready: pyproject.toml
	$(call environment,$(VENV),.)
	@touch $@

$(VENV)/.ready-dev: pyproject.toml
	$(call environment,$(VENV),.[dev])
	@touch $(VENV)/.ready $@

$(LIVE)/.ready: pyproject.toml
	$(call environment,$(LIVE),.[dev$(comma)live])
	@touch $@

comma := ,

define environment
@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	{ echo "$(PYTHON) is not Python 3.11 or later; name one: make PYTHON=python3.12 $(MAKECMDGOALS)" >&2; exit 2; }
@test -x $(1)/bin/python || { echo "building $(1)" >&2; $(PYTHON) -m venv $(1); }
@echo "installing $(2) into $(1)" >&2
@$(1)/bin/python -m pip install -qq --editable "$(2)"
endef
