# The verbs of this checkout. `make` alone lists them; each does the set-up that it needs.

PYTHON ?= $(shell for p in python3 python3.14 python3.13 python3.12 python3.11; do \
	$$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && { echo $$p; break; }; done)
BIN := .venv/bin
READY := .venv/.ready
DATA ?=
PEERS ?=
SECONDS ?=

.DEFAULT_GOAL := help
.PHONY: help setup demo test soak fuzz check format bench docs clean

help:  ## list the verbs
	@awk -F ':.*## ' '/^[a-z]+:.*## / {printf "  make %-8s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup: $(READY)  ## make .venv and install augd, the trainer and the tools into it

demo: $(READY)  ## train a small network on made photos; DATA=folder for your own
	@$(BIN)/python -m demo.train $(if $(DATA),--data "$(DATA)")

# Two more than cores, six at most: many tests wait. A file's tests run in one process.
WORKERS := $(shell n=$$(nproc); echo $$(( n < 4 ? n + 2 : 6 )))
# Some thousand processes are started: compiling augd anew in each takes a third of the time.
KEEP := env -u PYTHONDONTWRITEBYTECODE
test: $(READY)  ## run every test, side by side; the end says what is left to `make soak`
	@$(KEEP) $(BIN)/python -m pytest -rfEs -n $(WORKERS) $(ORDER)

soak: $(READY)  ## the long forms of tests, 10,000 schedules, then something killed every second for SECONDS=600
	@$(KEEP) AUGD_SOAK=1 $(BIN)/python -m pytest -q --timeout 0 -m "soak or longer or hypothesis"
	@$(BIN)/python -m tests.fault.soak --seconds $(or $(SECONDS),600)
	@$(BIN)/python -m tests.fault.freezes
	@$(BIN)/python -m tests.fault.checker --seconds $(or $(SECONDS),600)

fuzz: $(READY)  ## fuzz image headers, decoding and messages for SECONDS=60 in all
	@$(BIN)/python -c 'import atheris' 2>/dev/null \
		|| $(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[fuzz]'
	@for target in header pixels wire names; do \
		$(BIN)/python -m tests.fuzz.run $$target $$(( $(or $(SECONDS),60) / 4 )) || exit 1; done

check: $(READY)  ## format, lint, strict types, import contracts, spelling: one gate
	@$(BIN)/ruff format --check --quiet . || { echo "make check: run 'make format'" >&2; exit 1; }
	@$(BIN)/ruff check --quiet .
	@$(BIN)/mypy
	@$(BIN)/lint-imports --no-logo 2>/dev/null || $(BIN)/lint-imports
	@$(BIN)/codespell

format: $(READY)  ## rewrite the files as `make check` wants them
	@$(BIN)/ruff format --quiet .
	@$(BIN)/ruff check --quiet --fix .

bench: $(READY)  ## run the benchmarks; PEERS=1 installs other loaders and runs them beside
	@test -z "$(PEERS)" || $(BIN)/python -m benchmarks.peers.install albumentations
	@$(BIN)/python -m benchmarks $(if $(DATA),--data "$(DATA)")
	@test -z "$(PEERS)" || $(BIN)/python -m benchmarks.peers $(if $(DATA),--data "$(DATA)")

docs: $(READY)  ## make the images and tables of docs/augmentation.md, and the site in build/site
	@$(BIN)/python -m demo.op_images
	@$(BIN)/python -c 'import mkdocs, mkdocstrings' 2>/dev/null \
		|| $(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[docs]'
	@NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --strict --quiet

clean:  ## remove what the other verbs made, .venv included
	rm -rf .venv .peers .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache \
		build dist demo-sheet.png finding-* augd/pixels/_kernels*.so
	find augd trainer demo benchmarks examples tests -name __pycache__ -prune -exec rm -rf {} + 2>/dev/null || true

# Debian and Ubuntu ship Python without ensurepip until python3-venv is installed: see to it as
# root, say it in one line otherwise. An unfinished .venv is made again.
$(READY): pyproject.toml hatch_build.py $(wildcard augd/pixels/kernels/*)
	@test -n "$(PYTHON)" || { echo "make setup: augd needs Python 3.11 or newer as python3, and none was found" >&2; exit 1; }
	@$(BIN)/python -m pip --version >/dev/null 2>&1 || { \
		$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null \
		|| { test "$$(id -u)" = 0 && apt-get install -y --no-install-recommends python3-venv >/dev/null 2>&1; } \
		|| { echo "make setup: this Python lacks venv; run: sudo apt-get install python3-venv" >&2; exit 1; }; \
		$(PYTHON) -m venv --clear .venv; }
	@echo "make setup: installing into .venv (torch is large; the first time takes minutes)"
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[trainer,http,dev]'
	@$(BIN)/python -c 'from augd.pixels.native import kernels; kernels or print("make setup: without native kernels; augd doctor says how to get them")'
	@touch $@
