# Everything a developer types; CI calls the same verbs. `make demo` and `make test` need Python 3.11 to 3.13 and nothing else.
SHELL := /bin/sh
PYTHON ?= $(shell for p in python3.11 python3.12 python3.13 python3; do \
	$$p -c 'import sys, venv; sys.exit(not (3, 11) <= sys.version_info < (3, 14))' 2>/dev/null && echo $$p && break; done)
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/installed
DETECTRON2 := $(VENV)/detectron2
LIGHTLY := $(VENV)/lightly
OPENMMLAB := $(VENV)/openmmlab
AXE := $(VENV)/axe
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check

.PHONY: demo test test-all check fmt docs coverage audit install providers clean gpu-check

demo: $(STAMP)
	@$(BIN)/cgh-bench demo

test: $(STAMP) providers
	@$(BIN)/pytest -n 2 --dist worksteal

test-all: $(STAMP) providers
	@$(BIN)/pytest -n 2 --dist worksteal -m ""

# On a machine with a CUDA GPU: six minutes; writes benchmarks/results/gpu_check.md.
gpu-check: $(STAMP)
	@$(BIN)/python benchmarks/gpu_check.py

coverage: $(STAMP) providers
	@$(BIN)/pytest -n 2 --dist worksteal --cov --cov-report=term

check: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

docs: $(STAMP)
	@NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build

# Known vulnerabilities of what is installed; asks the network.
audit: $(STAMP)
	@$(BIN)/pip-audit --skip-editable

fmt: $(STAMP)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

install: $(STAMP)

$(STAMP): pyproject.toml constraints.txt
	@test -n "$(PYTHON)" || { echo "error: no Python 3.11 to 3.13 with its venv module found; install one (apt-get install python3-venv) or name it: make PYTHON=…" >&2; exit 2; }
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@echo "» installing into $(VENV): about 2 minutes and 7 GB, most of it torch" >&2
	@$(PIP) --constraint constraints.txt --editable '.[cpu,openmmlab,dev]'
	@touch $@

# For tests, each on the path of its own processes only: detectron2 without its compiled part (it brings a package
# `tools`), lightly without what it needs for training, and OpenMMLab's own packages beside the forks.
providers: $(DETECTRON2)/installed $(LIGHTLY)/installed $(OPENMMLAB)/installed $(AXE)/node_modules

# Accessibility of the site; without npm its test is skipped.
$(AXE)/node_modules: $(STAMP)
	@if command -v npm >/dev/null; then npm install --silent --prefix $(AXE) axe-core@4 && touch $@; fi

$(DETECTRON2)/installed: tests/providers/detectron2.txt tests/providers/detectron2_needs.txt $(STAMP)
	@rm -rf $(DETECTRON2)
	@$(PIP) --no-deps --only-binary=:all: --python-version 3.10 --target $(DETECTRON2) --require-hashes -r tests/providers/detectron2.txt
	@$(PIP) --no-deps --target $(DETECTRON2) -r tests/providers/detectron2_needs.txt
	@touch $@

$(LIGHTLY)/installed: tests/providers/lightly.txt $(STAMP)
	@rm -rf $(LIGHTLY)
	@$(PIP) --no-deps --only-binary=:all: --target $(LIGHTLY) --require-hashes -r tests/providers/lightly.txt
	@touch $@

$(OPENMMLAB)/installed: tests/providers/openmmlab.txt $(STAMP)
	@rm -rf $(OPENMMLAB)
	@$(PIP) --no-deps --only-binary=:all: --target $(OPENMMLAB) --require-hashes -r tests/providers/openmmlab.txt
	@touch $@

clean:
	rm -rf $(VENV) work build *.egg-info .pytest_cache .mypy_cache .ruff_cache
