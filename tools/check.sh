#!/usr/bin/env bash
# Formatters, linters and type checkers, for everything in the repository.
set -euo pipefail
cd "$(dirname "$0")/.."
export PATH="$PWD/.venv/bin:$PATH"
say() { printf '\033[1m==>\033[0m %s\n' "$*"; }
say "ruff";    ruff format --check --quiet .; ruff check --quiet .
say "mypy";    tools/mypy.sh
say "buf";     (cd proto && buf lint && buf breaking --against baseline.binpb)
say "rustfmt"; (cd engine && cargo fmt --check)
say "clippy";  (cd engine && cargo clippy --workspace --all-targets --locked --quiet -- -D warnings)
say "locks";   (cd engine/fuzz && cargo metadata --locked --format-version 1 >/dev/null)
say "web";     npm --prefix sdk/web run --silent check
say "charts";  tools/check_charts.sh
say "shell";   for f in tools/*.sh .ci/run; do bash -n "$f"; done
