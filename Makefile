# make demo, make test: each makes .venv when it is missing and installs what it needs.
# make test PYTHON=python3.13  uses another Python, in .venv-3.13.

PYTHON ?= python3
ifndef VENV
ifeq ($(PYTHON),python3)
VENV   := .venv
else
VENV   := .venv-$(shell $(PYTHON) -c 'import sys; print("%d.%d" % sys.version_info[:2])')
endif
endif
BIN     = $(VENV)/bin
PIP     = $(BIN)/python -m pip --disable-pip-version-check
STAMP   = $(VENV)/.installed
# Twice the cores would only make them wait: every test process computes with MXNet's own threads.
JOBS   ?= auto

NATIVE  = setup.py pyproject.toml CMakeLists.txt constraints.txt $(wildcard mxtrt/*.pyx) \
          $(wildcard csrc/*)

.PHONY: help demo test ci check lint types cython cpp pytest slow docs wheel install venv format clean

help:  ## Show these lines
	@sed -n 's/^\([a-z]*\):.*## /\1|/p' $(MAKEFILE_LIST) | awk -F'|' '{printf "make %-9s %s\n", $$1, $$2}'

demo: $(STAMP)  ## Train a small net on handwritten digits, optimise it, compare both
	$(BIN)/python examples/digits/demo.py

test: check docs pytest wheel  ## All checks with one Python: lint, types, docs, tests, the wheel

ci:  ## test with Python 3.13 and NumPy 2, and the tests once more with 3.10 and NumPy 1.23
	scripts/test_pythons.sh

check: lint types cython cpp

install: $(STAMP)  ## Make .venv and install mxtrt into it, editable

venv:  ## Say where the environment of a Python is
	@echo $(VENV)

lint: $(STAMP)  ## ruff check, ruff format --check
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(STAMP)  ## mypy --strict
	$(BIN)/mypy

cython: $(STAMP)  ## cython-lint
	PATH="$(abspath $(BIN)):$$PATH" cython-lint mxtrt

cpp: $(STAMP)  ## clang-format --dry-run
	$(BIN)/clang-format --dry-run -Werror csrc/*.cc csrc/*.h

pytest: $(STAMP)  ## The tests, in parallel, without the long sweeps
	$(BIN)/python -m pytest -n $(JOBS) -m "not slow" tests

slow: $(STAMP)  ## The long sweeps
	$(BIN)/python -m pytest -n $(JOBS) -m slow tests

docs: $(STAMP)  ## Build the documentation into build/site, with warnings as errors
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --quiet --strict

wheel: $(STAMP)  ## Build a wheel and run it in an empty environment
	scripts/check_wheel.sh $(BIN)/python

format: $(STAMP)  ## Rewrite the sources as lint and cpp want them
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .
	$(BIN)/clang-format -i csrc/*.cc csrc/*.h

clean:  ## Remove .venv* and everything that was built
	rm -rf .venv .venv-* $(VENV) build dist *.egg-info mxtrt/*.so

$(BIN)/python:
	$(PYTHON) scripts/check_system.py
	$(PYTHON) -m venv $(VENV)

# mxnet comes first and without its requirements, which name numpy<2 and graphviz<0.9. No build
# isolation: a second build finds what the first one left.
$(STAMP): $(BIN)/python $(NATIVE)
	$(PIP) install -c constraints.txt 'setuptools>=64' wheel 'cython>=3' cmake
	$(PIP) install -c constraints.txt --no-deps mxnet
	$(PIP) install -c constraints.txt --no-build-isolation -e '.[test,dev,docs,models]'
	$(PIP) install -c constraints.txt --no-deps gluoncv gluonnlp
	touch $@
