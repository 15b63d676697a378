# The two commands: `make bench` and `make test`. Each installs into .venv first, if that is not done or out of date.
PYTHON  ?= python3
WORKERS ?= 2
# Time for `make bench` and `make gpu-evidence`; each has a default.
BUDGET  ?=
# A folder of wheels to install from without a network; CONTRIBUTING.md says how to fill it.
WHEELS  ?=
# CuPy for the CUDA version of the driver. Without a driver cuda13, whose NVRTC serves compile checks.
EXTRA   ?= $(if $(shell nvidia-smi 2>/dev/null | grep -E 'CUDA Version: 12\.'),cuda12,cuda13)

.PHONY: help install bench gpu-evidence test quick goldens lint clean
help:
	@echo 'make install                                     into .venv, as all of the others do first'
	@echo 'make bench [BUDGET=3m] [ARGS=...]                check and time the kernels, judge the samplers, write a page'
	@echo 'make gpu-evidence [BUDGET=12m] [WHEELS=folder]   on a GPU: a run for results/, the most valuable steps first'
	@echo 'make test [WORKERS=2] [ARGS=...]                 run the tests'
	@echo 'make quick                                       the tests that matter while you work, in under a minute'
	@echo 'make goldens [OPERATIONS=...]                    write the summaries of machine code, the table of README and the schema of results again'
	@echo 'make lint                                        ruff and mypy'
	@echo 'make clean                                       remove .venv and caches'

.venv/.installed: pyproject.toml constraints.txt
	test -x .venv/bin/python || $(PYTHON) -m venv .venv
	.venv/bin/python -m pip install $(if $(WHEELS),--no-index --find-links '$(WHEELS)' )-c constraints.txt -e '.[$(EXTRA),report,test]'
	touch $@

install: .venv/.installed

bench: .venv/.installed
	.venv/bin/boltzbench run --budget $(or $(BUDGET),3m) $(ARGS) --first logsumexp --first sgld

# First the operations that matter most; of rbm_gibbs the case whose weights stay in shared memory.
gpu-evidence: .venv/.installed
	.venv/bin/boltzbench run --budget $(or $(BUDGET),12m) --out results --new-only --device cuda --first logsumexp \
	    --first sgld --first 'rbm_gibbs bf16 chains=8192 visible=256' $(ARGS)

# One thread each: the workers have the cores.
test: .venv/.installed
	OMP_NUM_THREADS=1 .venv/bin/python -m pytest -n $(WORKERS) $(ARGS)

# Imports between rooms, agreement, the registry, tables, the random stream, and every operation on its smallest case.
QUICK = tests/test_architecture.py tests/harness/agreement tests/harness/discovery/test_registry.py \
	tests/harness/report/test_tables.py tests/kernels/test_philox.py \
	tests/operations/test_rooms.py tests/operations/test_smallest_case.py
quick: .venv/.installed
	OMP_NUM_THREADS=1 .venv/bin/python -m pytest -n $(WORKERS) $(QUICK) $(ARGS)

goldens: .venv/.installed
	cd tests && ../.venv/bin/python -m support.golden $(OPERATIONS) && \
	    ../.venv/bin/python -m support.readme && ../.venv/bin/python -m support.results_schema

lint: .venv/.installed
	.venv/bin/ruff check
	.venv/bin/ruff format --check
	mkdir -p .mypy_cache/tree/boltzbench
	ln -sfn $(CURDIR)/harness $(CURDIR)/kernels $(CURDIR)/plugins .mypy_cache/tree/boltzbench
	MYPYPATH=.mypy_cache/tree .venv/bin/mypy -p boltzbench
	MYPYPATH=.mypy_cache/tree:tests .venv/bin/mypy $(TYPED_TESTS)

# What tests share, and what the generic tests load from the operations' folders.
TYPED_TESTS = --explicit-package-bases tests/support/*.py tests/operations/*/wrong_kernels.py \
	tests/operations/*/sanitized.py

clean:
	rm -rf .venv .pytest_cache .mypy_cache .ruff_cache build *.egg-info
