# The two commands that matter: `make demo` and `make test`. Both need Python >= 3.11 and, for the
# fused kernels, a C++ compiler; everything else is installed into .venv.
PYTHON ?= python3
BIN := .venv/bin

.PHONY: demo test lint types format clean

demo: .venv/.installed
	$(BIN)/zeta evaluate --out zeta-report
	@echo "Open the report in a browser: $(CURDIR)/zeta-report/report.html"

test: .venv/.installed
	$(BIN)/pytest --numprocesses 2

lint: .venv/.installed
	$(BIN)/ruff check src tests examples
	$(BIN)/ruff format --check src tests examples

types: .venv/.installed
	$(BIN)/mypy

format: .venv/.installed
	$(BIN)/ruff check --fix src tests examples
	$(BIN)/ruff format src tests examples

.venv/.installed: pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Zeta needs Python 3.11 or newer; run make PYTHON=python3.12, say")'
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[dev]'
	touch $@

clean:
	rm -rf .venv zeta-report build dist
