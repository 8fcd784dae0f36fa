# Every verb one line; `make` alone prints them.
.DEFAULT_GOAL := help
SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DELETE_ON_ERROR:

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
export VIRTUAL_ENV := $(CURDIR)/$(VENV)
unexport PYTHONPATH
RUST_SOURCES := Cargo.toml Cargo.lock $(shell find crates -name '*.rs' -o -name 'Cargo.toml')

ASSETS := src/coder/web/static/manifest.json
WEB_SOURCES := web/package-lock.json web/build.mjs $(shell find web/src -type f)

.PHONY: help setup assets screenshots build fmt check types test unit rust-test e2e interop run bench lab fuzz proto docs lock clean

help: ## print this list
	@grep -hE '^[a-z][a-z-]*:.*## ' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 14

$(VENV)/.installed: requirements.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check --require-hashes -r requirements.txt
	touch $@

$(VENV)/.built: $(VENV)/.installed pyproject.toml $(RUST_SOURCES)
	$(BIN)/maturin develop --release --locked --quiet
	touch $@

setup: $(VENV)/.built $(if $(shell command -v npm),$(ASSETS)) ## install everything into .venv, build the data plane and, where npm is, the pages' assets

web/node_modules/.installed: web/package-lock.json web/package.json web/.npmrc
	npm --prefix web ci --no-audit --no-fund --ignore-scripts --loglevel=error
	touch $@

$(ASSETS): web/node_modules/.installed $(WEB_SOURCES)
	npm --prefix web run --silent build

assets: $(ASSETS) ## bundle the scripts and styles of the dashboard (needs Node 20 or newer)

build: setup assets ## build a wheel into dist/
	$(BIN)/maturin build --release --locked --out dist

fmt: $(VENV)/.installed ## format everything
	$(BIN)/ruff format . && $(BIN)/ruff check --fix --quiet . ; cargo fmt --all

check: setup ## format, lint, types, import contracts, clippy, generated files: what must be green before a commit
	$(BIN)/ruff format --check --quiet .
	$(BIN)/ruff check --quiet .
	$(BIN)/mypy
	$(BIN)/stubtest coder.dataplane._native
	$(BIN)/lint-imports --no-logo
	$(BIN)/python scripts/proto.py --check
	cargo fmt --all --check
	cargo clippy --quiet --locked --workspace --all-targets -- -D warnings

unit: setup ## the Python tests that start no processes
	$(BIN)/pytest -m "not e2e and not lab and not interop"

rust-test: ## the Rust tests
	cargo test --quiet --locked --workspace

e2e: setup ## the tests that start real servers, agents and commands
	$(BIN)/pytest -m "e2e or lab"

interop: setup ## peers of other makers: needs Go, and CODER_REAL_BINARY=path for the tests with another coder
	CODER_INTEROP=1 $(BIN)/pytest tests/interop -m interop -rs

test: check rust-test ## everything: check, Rust tests, Python tests, real processes, namespaces
	$(BIN)/pytest

lab: setup ## every pair of NATs and every fault in network namespaces; writes build/lab.json
	$(BIN)/pytest tests/lab --whole -m lab

run: setup ## a server, a user, a workspace, its agent, ping and speed tests; ONESHOT=1 stops after them
	$(BIN)/python scripts/run.py $(if $(ONESHOT),--oneshot)

bench: setup ## throughput, CPU, set-up time, memory: build/bench.json; one stream over lossy links: build/grid.json
	$(BIN)/python benches/bench.py
	$(BIN)/python benches/relay.py
	$(BIN)/python benches/apps.py
	$(BIN)/python benches/terminal.py
	cargo build --quiet --release --locked -p lab-link
	$(BIN)/python benches/grid.py

fuzz: ## fuzz one codec: TARGET=disco SECONDS=60 (needs a nightly Rust and cargo-fuzz)
	@scripts/fuzz.sh "$(or $(TARGET),all)" "$(or $(SECONDS),60)"

proto: setup ## generate src/coder/wire/proto from the .proto files
	$(BIN)/python scripts/proto.py

docs: setup ## generate the reference pages of docs/
	$(BIN)/python scripts/docs_config.py
	$(BIN)/python scripts/docs_cli.py

lock: $(VENV)/.installed ## renew requirements.txt from pyproject.toml
	$(BIN)/pip install --quiet pip-tools
	$(BIN)/pip-compile --quiet --upgrade --extra dev --generate-hashes --strip-extras --allow-unsafe \
		--no-emit-index-url --no-emit-trusted-host --no-emit-find-links --no-header --output-file requirements.txt pyproject.toml

screenshots: setup assets ## one picture of each page, light, dark and on a phone, into build/screenshots (needs chromium)
	$(BIN)/python scripts/screenshots.py

clean: ## remove what was built, keep the caches of the package managers
	rm -rf $(VENV) build dist .run target src/coder/dataplane/_native*.so web/node_modules src/coder/web/static
