# Everything runs in .venv, which the first command makes. PYTHON must be 3.11 or newer.
PYTHON ?= python3
BIN := .venv/bin

.PHONY: compare test check soak bench clean

## Compare the methods on the bundled digits; figures and tables land in runs/compare.
compare: .venv/installed
	$(BIN)/asgrad compare

## Lint, types, import contracts, tests: what CI runs.
test: .venv/installed-for-tests
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/pytest

check: test

## Long random searches for counterexamples, not part of the tests.
soak: .venv/installed-for-tests
	$(BIN)/pytest -m soak

## Speed, as ratios against plain loops. W7A=path/to/w7a uses that LIBSVM file.
bench: .venv/installed
	$(BIN)/python -m bench $(if $(W7A),--data $(W7A))

.venv/bin/python:
	$(PYTHON) -c 'import sys; sys.exit("asgrad needs Python 3.11 or newer; set PYTHON=...") if sys.version_info < (3, 11) else None'
	$(PYTHON) -m venv .venv

.venv/installed: pyproject.toml | .venv/bin/python
	$(BIN)/pip install --quiet --disable-pip-version-check -e '.[train]'
	touch $@

.venv/installed-for-tests: pyproject.toml | .venv/bin/python
	$(BIN)/pip install --quiet --disable-pip-version-check -e '.[test]'
	touch $@ .venv/installed

clean:
	rm -rf .venv build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find src tests -name '__pycache__' -prune -exec rm -rf {} +
