# Few doors, the same for people and CI. `make` alone prints them.
# Needs Python 3.11 or later and nothing else; PYTHON=python3.12 names one. Packages come from pip's own index.

PYTHON ?= python3
PROMPT ?= Why is the sky blue? Answer in two sentences.
VENV := .venv
BENCH_LLAMA := $(if $(PHI4MINI_BENCH_LLAMA),,.venv-llama/.ready)
BENCH_OPENVINO := $(if $(PHI4MINI_BENCH_OPENVINO),,.venv-openvino/.ready)
LIVE := .venv-live
CLIENTS := .venv-clients
COVER ?= tests
# The fast lane: what each promise rests on, with few kernels to compile. Of the files of many cases it takes one store
# (q4 weights, int8 cache) and the float engine against the definition. Its matrices are tiny: on a busy machine NumPy's
# threads would wait for each other ten times as long as they compute.
FAST := tests/test_house.py tests/test_docs.py tests/test_files.py tests/model/test_reference.py \
	tests/formats/test_matrix.py tests/kernels/test_norm.py tests/engine/test_engine.py \
	tests/engine/compute/test_forward.py tests/engine/test_invariance.py \
	-k "not (test_forward or test_invariance) or q4-int8 or test_definition_f32"
override PROMPT := $(value PROMPT)
export PROMPT
export PIP_DISABLE_PIP_VERSION_CHECK := 1

.PHONY: help setup chat fast test test-slow test-clients test-live check coverage bench bench-peers clean

help: ## print this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-12s %s\n", $$1, $$2 }' $(firstword $(MAKEFILE_LIST))

setup: $(VENV)/.ready-dev ## build .venv with everything for tests and checks

chat: $(VENV)/.ready ## fetch the demo model if needed and answer PROMPT="..."
	@$(VENV)/bin/phi4mini run -m demo -q f32 --kv f32 "$$PROMPT" </dev/null

fast: $(VENV)/.ready-dev ## the tests that find most, in under 30 s once kernels are compiled: definition, tiny engine, house, docs
	OPENBLAS_NUM_THREADS=1 $(VENV)/bin/python -m pytest -q $(FAST)

test: $(VENV)/.ready-dev ## run the whole test suite but what is slow or live
	$(VENV)/bin/python -m pytest

test-slow: $(VENV)/.ready-dev ## run the tests that take minutes each
	$(VENV)/bin/python -m pytest -m slow

test-clients: $(CLIENTS)/.ready ## run programs that people use against a server, in their own environment (.venv-clients)
	$(CLIENTS)/bin/python -m pytest -m "not slow" -W default tests/clients

test-live: $(LIVE)/.ready ## compare with Transformers anew, in an environment with torch (.venv-live)
	$(LIVE)/bin/python -m pytest -m "not slow" tests/live

check: $(VENV)/.ready-dev ## ruff and mypy, over the package, the tests and the benchmarks
	$(VENV)/bin/ruff format --check
	$(VENV)/bin/ruff check
	$(VENV)/bin/mypy

coverage: $(VENV)/.ready-dev ## run the suite and print the lines of each file that no test reached; COVER=tests/chat for a part
	$(VENV)/bin/python -m pytest -q --cov=phi4mini --cov-report=term-missing:skip-covered $(COVER)

bench: $(VENV)/.ready-bench ## time the whole model against the peers that are there; a table, JSON, a plot
	$(VENV)/bin/python -m benchmarks.run

bench-peers: $(VENV)/.ready $(BENCH_LLAMA) $(BENCH_OPENVINO) ## install llama.cpp and OpenVINO for bench, and make their models
	$(VENV)/bin/python -m benchmarks.prepare

clean: ## remove what make built; models stay in the cache (phi4mini ls, phi4mini rm)
	rm -rf $(VENV) $(LIVE) $(CLIENTS) .pytest_cache .mypy_cache .ruff_cache .hypothesis .coverage dist build

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

$(CLIENTS)/.ready: pyproject.toml
	$(call environment,$(CLIENTS),.[clients])
	@touch $@

$(VENV)/.ready-bench: pyproject.toml
	$(call environment,$(VENV),.[bench])
	@touch $(VENV)/.ready $@

# Peers get environments of their own, unless the two variables name interpreters that are there already.

.venv-llama/.ready:
	$(call peer,.venv-llama,"llama-cpp-python>=0.3.36" "gguf>=0.19" numpy)

.venv-openvino/.ready:
	$(call peer,.venv-openvino,"openvino-genai>=2026.4" "optimum-intel>=2.2" "nncf>=3.4")

comma := ,

define peer
@test -x $(1)/bin/python || { echo "building $(1)" >&2; $(PYTHON) -m venv $(1); }
@echo 'installing $(2) into $(1): minutes' >&2
@$(1)/bin/python -m pip install -qq $(2)
@touch $@
endef

define environment
@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	{ echo "$(PYTHON) is not Python 3.11 or later; name one: make PYTHON=python3.12 $(MAKECMDGOALS)" >&2; exit 2; }
@test -x $(1)/bin/python || { echo "building $(1)" >&2; $(PYTHON) -m venv $(1); }
@echo "installing $(2) into $(1)" >&2
@$(1)/bin/python -m pip install -qq --editable "$(2)"
endef
