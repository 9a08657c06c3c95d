#!/usr/bin/env bash
# Runs one level of the tests: unit, engine, integration or e2e.
set -euo pipefail
cd "$(dirname "$0")/.."
export PATH="$PWD/.venv/bin:$PATH"
export COLUMNS=240  # the summary says why a test failed, also without a terminal
say() { printf '\033[1m==>\033[0m %s\n' "$*"; }
case "${1:?unit, engine, integration or e2e}" in
  unit)
    say "Python unit tests"
    pytest -q services sdk/python deploy/embedded tests/contract -m "not integration"
    say "web unit tests"
    npm --prefix sdk/web test --silent
    ;;
  engine)
    say "engine tests"
    (cd engine && cargo test --workspace --exclude mrtc-python --locked --quiet "${@:2}")
    ;;
  integration)
    say "integration tests"
    folders=(services sdk/python engine/python tests/interop)
    # They wait more than they work. A file's tests stay together: they share a suite.
    pytest -q -n auto --maxprocesses 4 --dist loadfile --durations=20 "${folders[@]}" -m "integration and not alone"
    pytest -q --durations=8 "${folders[@]}" -m "integration and alone"
    ;;
  e2e)
    say "end-to-end tests with real browsers"
    # Apart: Playwright keeps an event loop in the main thread, in which the asynchronous tests could not run.
    pytest -q --durations=8 tests/chaos -m "not long"
    pytest -q --durations=12 tests/e2e
    ;;
esac
