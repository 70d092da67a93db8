# make demo | test | check | bench | soak | patches | venv VARIANT=cpu|cu13|cu12
VARIANT ?= cpu
VENV ?= .venv
PY = $(VENV)/bin/python
STAMP = $(VENV)/.btrm-$(VARIANT)
RUN ?= runs/demo$(if $(CONTROL),-control)
# One thread a process: on a small machine, two trainers with two threads each are slower than two with one.
export OMP_NUM_THREADS ?= 1

.PHONY: help demo test check bench soak venv lint patches
help:
	@echo "make demo            the whole pipeline on the built-in data, on this machine's CPU, to a table"
	@echo "make demo CONTROL=1  the same with the stock sampler: nothing is learnt"
	@echo "make check           lint, types and quick tests (under two minutes)"
	@echo "make test            all tests but the long counts; as root on Debian or Ubuntu it installs Slurm for them"
	@echo "make soak            the long counts"
	@echo "make bench           ratios against plain implementations"
	@echo "make patches         the patch series for ms-swift, in step with btrm's modules"
	@echo "make venv VARIANT=…  the environment: cpu (default), cu13 or cu12"

venv: $(STAMP)
$(STAMP): setup/install.sh containers/locks/$(VARIANT).lock pyproject.toml
	@setup/install.sh $(VENV) $(VARIANT)
	@touch $@

demo: $(STAMP)
	@$(PY) -m btrm.submit pipeline --site local --experiment toy.$(if $(CONTROL),control,demo) --run $(RUN)

lint: $(STAMP)
	@$(VENV)/bin/ruff check . && $(VENV)/bin/ruff format --check . && $(VENV)/bin/pyright --pythonpath $(PY)

check: lint
	@$(PY) -m pytest -q -n auto -m "not slow and not soak"

test: $(STAMP)
	@setup/system.sh
	@$(PY) -m pytest -q -m "not soak"

soak: $(STAMP)
	@setup/system.sh
	@$(PY) -m pytest -v -m soak

patches: $(STAMP)
	@$(PY) containers/patches/refresh.py

bench: $(STAMP)
	@set -e; for bench in benchmarks/bench_*.py; do echo "== $$bench"; $(PY) $$bench; done
