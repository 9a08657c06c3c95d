# `make` prints this help. Every daily action is a target; each works from a fresh clone.
SHELL := /bin/bash
.DEFAULT_GOAL := help
PY := .venv/bin/python
export PATH := $(CURDIR)/.venv/bin:$(PATH)

.PHONY: help setup setup-run setup-test proto build engine web run probe test test-unit test-engine test-integration \
	test-e2e check format settings proto-baseline lock bench scoreboard impairments fuzz chaos soak upgrade dump capture clean

help: ## Print this help
	@awk 'BEGIN {FS = ":.*## "} /^[a-z-]+:.*## / {printf "  %-17s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup-run: ## Install and build what `make run` needs
	@tools/setup.sh run

setup-test: ## Install and build what most tests need
	@tools/setup.sh test

setup: ## Install and build everything, the engine's own tests too
	@tools/setup.sh everything

proto: ## Generate Python code from proto/
	@tools/gen_proto.sh

engine: ## Build the engine wheel and install it into .venv
	@tools/build_engine.sh

web: ## Build the web SDK and the demo page
	@tools/build_web.sh

build: proto engine web ## Build all of it

run: setup-run ## Start the whole suite on this machine and print its URL (Ctrl-C ends it)
	@$(PY) -m mrtc_embedded $(ARGS)

probe: setup-run ## Join the running suite as a synthetic client and report join time, first frame, loss
	@$(PY) -m mrtc_sdk.probe $(ARGS)

test: setup check test-unit test-engine test-integration test-e2e ## Run all checks and tests
	@echo "make test: everything passed"

test-unit: setup-test ## Python and web unit tests (seconds)
	@tools/test.sh unit

test-engine: setup-test ## The engine's own tests, in virtual time
	@tools/test.sh engine

test-integration: setup-test ## Real NATS, gRPC, engine, aiortc
	@tools/test.sh integration

test-e2e: setup-test ## The whole suite with real browsers, third-party clients and kills
	@tools/test.sh e2e

check: setup-test ## Formatters, linters, type checkers, chart and proto lint
	@tools/check.sh

format: setup-test ## Format Python and Rust
	@ruff format . && ruff check --fix . && cd engine && cargo fmt

settings: setup-run ## Renew deploy/config/*.yaml from the code
	@tools/gen_settings.sh

proto-baseline: setup-test ## Make proto/ as it is the contract that later changes are compared with (at a release)
	@cd proto && buf build --exclude-source-info -o baseline.binpb

lock: ## Renew requirements.lock from pyproject.toml
	@uv pip compile -q --python-version 3.11 --generate-hashes --no-emit-index-url --no-header --all-extras \
		pyproject.toml -o requirements.lock

bench: setup-run ## Measure the hot path through the real service; one JSON line per profile
	@$(PY) tests/bench/run.py $(ARGS)

scoreboard: setup-run ## Run subscribers behind all kinds of paths in virtual time; writes docs/scoreboard.md
	@cd engine && SCOREBOARD=$(CURDIR)/docs/scoreboard.md cargo test -q --release -p mrtc-core --test scenarios \
		write_the_board -- --ignored --nocapture

impairments: setup-test ## Calls of real browsers on bad networks; writes docs/impairments.md (10 minutes)
	@$(PY) -m tests.e2e.sweep $(ARGS)

chaos: setup-test ## Kill, freeze, drain and move under running calls; ends with one JSON line (40 minutes)
	@pytest -q tests/chaos -m long
	@$(PY) -m tests.chaos $(ARGS)

soak: setup-test ## Joins, leaves, moves and deaths for SOAK_S seconds (two hours); fails if anything grew
	@$(PY) -m tests.chaos.soak $(ARGS)

upgrade: setup-test ## Replace every process under a call by one of another version, and back: make upgrade FROM=COMMIT
	@$(PY) -m tests.chaos.upgrade $(FROM) $(ARGS)

fuzz: ## Fuzz every parser for FUZZ_SECONDS (default 60) each
	@tools/fuzz.sh

dump: ## Print a room's forwarding state: make dump ROOM=name
	@$(PY) -m mrtc_embedded.dump $(ROOM)

capture: ## Write a room's packets to pcapng files: make capture ROOM=name ARGS="--packets --seconds 5"
	@$(PY) -m mrtc_embedded.capture $(ROOM) $(ARGS)

clean: ## Remove builds and the embedded suite's data
	rm -rf var .cache engine/target sdk/web/node_modules sdk/web/dist sdk/web/dist-demo proto/gen
