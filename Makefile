# Two commands for a fresh clone with only Python, make and a network: `make demo` and `make test`.
# uv is bootstrapped into the checkout and finds the Python named in .python-version.

export OPENBLAS_NUM_THREADS ?= 1
export OMP_NUM_THREADS ?= 1
export MPLBACKEND ?= Agg

PYTHON3 ?= python3
VENV := .venv
BIN := $(VENV)/bin
UV := .uv/bin/uv

.PHONY: help setup demo test check slow bench docs notebooks format clean requirements

help:
	@echo "make setup demo test check slow bench docs notebooks format clean requirements"

$(UV):
	$(PYTHON3) -m venv .uv
	.uv/bin/pip install --quiet --disable-pip-version-check uv

$(VENV)/.ready: pyproject.toml requirements.txt .python-version | $(UV)
	test -x $(BIN)/python || $(UV) venv --quiet $(VENV)
	$(UV) pip install --quiet --python $(BIN)/python --compile-bytecode -r requirements.txt
	$(UV) pip install --quiet --python $(BIN)/python --no-deps --editable .
	$(BIN)/python -m compileall -q bayeslmm
	touch $@

setup: $(VENV)/.ready

demo: setup
	$(BIN)/bayeslmm run models/sleepstudy

test: setup
	$(BIN)/python -m pytest -m "not slow" -n auto --dist loadfile

check: setup
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

slow: setup
	$(BIN)/python -m pytest -m slow

bench: setup
	$(UV) pip install --quiet --python $(BIN)/python --group bench
	$(BIN)/python benchmarks/classical.py --out benchmarks/results/classical.md
	$(BIN)/python benchmarks/nist.py --out benchmarks/results/nist.md
	$(BIN)/python benchmarks/loci.py
	$(BIN)/python benchmarks/bayes.py --out benchmarks/results/bayes.md

notebooks: setup
	$(BIN)/python -m pytest tests/test_notebooks.py

docs: setup
	$(BIN)/sphinx-build -q -W -b html docs out/docs

format: setup
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

requirements: $(UV)
	$(UV) pip compile --quiet --universal --no-header --no-emit-index-url --no-emit-find-links --no-annotate --group dev --all-extras pyproject.toml -o requirements.txt

clean:
	rm -rf $(VENV) .uv out dist build .mypy_cache .ruff_cache .pytest_cache
