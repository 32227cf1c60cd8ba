# Every target sets up its own environment first, from nothing but Python >= 3.11. `make help` lists them.
# Another Python: make demo PYTHON=/path/to/python3.12

SHELL := /bin/bash
VENV := .venv
RUN := $(VENV)/bin/python
PIP := -m pip --disable-pip-version-check --no-input install -qq --no-compile
DEMO := runs/demo
WORKERS ?= 2

# Compiled modules are kept even where the environment says not to: without them every program starts 4 s later.
export PYTHONDONTWRITEBYTECODE :=

# Huge pages for large arrays, where there are any (glibc): training on a CPU is faster with them.
demo bench: export GLIBC_TUNABLES ?= glibc.malloc.hugetlb=1

# The first of these that is Python >= 3.11.
PYTHON ?= $(firstword $(foreach p,python3 python python3.13 python3.12 python3.11 python3.14,$(shell \
	command -v $(p) >/dev/null 2>&1 && $(p) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $(p))))

.PHONY: help demo test test-slow test-tpu lint format bench tables clean

help:  ## this list
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## */make \1\t/' | expand -t 16

demo: $(VENV)/.ready  ## train a small model on the Python docs, evaluate and sample it (6 minutes on 2 CPU cores)
	@$(RUN) -m experiments.train --config=experiments/configs/demo_python_docs.py --workdir=$(DEMO)
	@echo "report: $(DEMO)/report.html  (numbers: $(DEMO)/report.json)"

test: $(VENV)/.ready  ## the tests, on CPU (15 minutes on 2 cores)
	@JAX_PLATFORMS=cpu $(RUN) -m pytest -n $(WORKERS) $(ARGS)

test-slow: $(VENV)/.ready  ## the tests that `test` leaves out: whole programs, killed and resumed, in several processes; notebooks
	@JAX_PLATFORMS=cpu $(RUN) -m pytest -m slow -n $(WORKERS) $(ARGS)

test-tpu: .venv-tpu/.ready  ## compile the real steps ahead of time for TPU pods, on this host
	@JAX_PLATFORMS=cpu TPU_SKIP_MDS_QUERY=1 .venv-tpu/bin/python -m pytest tests/tpu $(ARGS)

lint: $(VENV)/.ready  ## style, formatting, import contracts
	@$(RUN) -m ruff check .
	@$(RUN) -m ruff format --check .
	@$(VENV)/bin/lint-imports --config setup.cfg --no-cache

format: $(VENV)/.ready  ## rewrite the code in the project's style
	@$(RUN) -m ruff check --fix .
	@$(RUN) -m ruff format .

bench: $(VENV)/.ready  ## speed of a training and a sampling step, into results/benchmarks (leave the machine idle)
	@$(RUN) -m benchmarks.train_step --out results/benchmarks/train_step.json
	@$(RUN) -m benchmarks.train_step --vocab 50257 --head packed --out results/benchmarks/train_step_50257_packed.json
	@$(RUN) -m benchmarks.train_step --vocab 50257 --head dense --out results/benchmarks/train_step_50257_dense.json
	@$(RUN) -m benchmarks.sample_step --out results/benchmarks/sample_step.json
	@$(RUN) -m benchmarks.sample_step --vocab 50257 --steps 32 --rounds 3 --out results/benchmarks/sample_step_50257.json
	@$(RUN) -m benchmarks.block_cache --out results/benchmarks/block_cache.json
	@$(RUN) -m benchmarks.sampler_laws --out results/benchmarks/sampler_laws.json
	@$(RUN) -m benchmarks.schedule_sweep --out results/benchmarks/schedule_sweep.json
	@$(RUN) -m benchmarks.order_gradients --out results/benchmarks/order_gradients.json
	@$(RUN) -m benchmarks.preference_step --out results/benchmarks/preference_step.json
	@$(RUN) -m benchmarks.crossbar_solve --out results/benchmarks/crossbar_solve.json

tables: $(VENV)/.ready  ## write the tables of README.md anew from results/
	@$(RUN) -m experiments.tables

clean:  ## remove environments, caches and runs
	rm -rf .venv .venv-tpu .cache runs build *.egg-info .pytest_cache .hypothesis .ruff_cache .import_linter_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# ---- environments ----------------------------------------------------------------------------------------------------

$(VENV)/.ready: EXTRAS := test,lint,hf,digits
.venv-tpu/.ready: EXTRAS := test,tpu
$(VENV)/.ready .venv-tpu/.ready: setup.cfg pyproject.toml
	@[ -n "$(PYTHON)" ] || { echo "no Python >= 3.11 found (python3 is $$(python3 -V 2>&1 || true)): install one, or say make PYTHON=/path/to/python3.12" >&2; exit 2; }
	@"$(PYTHON)" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || \
		{ echo "$(PYTHON) is not Python >= 3.11: say make PYTHON=/path/to/python3.12" >&2; exit 2; }
	@echo "setting up $(@D) with $$("$(PYTHON)" -V 2>&1) (about 1 GB; a few minutes the first time)" >&2
	@[ -x $(@D)/bin/pip ] || "$(PYTHON)" -m venv $(@D) || \
		{ echo "$(PYTHON) cannot make a virtual environment: install its venv module (Debian: apt install python3-venv)" >&2; exit 2; }
	@$(@D)/bin/python $(PIP) -e '.[$(EXTRAS)]' || \
		{ echo "pip could not install the dependencies of setup.cfg (see above): is the network there? The same command goes on." >&2; exit 2; }
	@touch $@
