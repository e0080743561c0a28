# Everything runs in .venv, which the first command makes. PYTHON must be 3.11 or newer.
PYTHON ?= python3
BIN := .venv/bin

.PHONY: compare test test-lowest check readme soak bench clean

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

## The tests on the lowest versions of all that pyproject.toml asks for; a CI job of its own.
test-lowest: .venv-lowest/installed
	NUMBA_CACHE_DIR=$(CURDIR)/.venv-lowest/cache .venv-lowest/bin/pytest -o filterwarnings=ignore::DeprecationWarning

## The README's table of methods, from what asgrad lists; the tests compare it.
readme: .venv/installed
	$(BIN)/python .ci/readme.py

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

.venv-lowest/installed: pyproject.toml .ci/lowest.py
	$(PYTHON) -m venv .venv-lowest
	.venv-lowest/bin/python .ci/lowest.py > .venv-lowest/requirements.txt
	.venv-lowest/bin/pip install --quiet --disable-pip-version-check -r .venv-lowest/requirements.txt
	.venv-lowest/bin/pip install --quiet --disable-pip-version-check --no-deps -e .
	touch $@

clean:
	rm -rf .venv .venv-lowest build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find src tests -name '__pycache__' -prune -exec rm -rf {} +
