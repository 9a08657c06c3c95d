#!/usr/bin/env bash
# Builds the engine's wheel (release) and installs it into .venv; skipped when its sources have not changed.
set -euo pipefail
cd "$(dirname "$0")/.."
mkdir -p .cache
sum=$(find engine -type f \( -name '*.rs' -o -name '*.toml' -o -name '*.py' -o -name '*.pyi' -o -name Cargo.lock \) \
  -not -path '*/target/*' -not -path 'engine/fuzz/*' -not -path '*/tests/*' -not -path '*/examples/*' -print0 | sort -z | xargs -0 sha256sum | sha256sum)
if [ "$(cat .cache/engine.sum 2>/dev/null)" = "$sum" ] && .venv/bin/python -c 'import mrtc_engine' 2>/dev/null; then exit 0; fi
printf '\033[1m==>\033[0m %s\n' "building the media engine (Rust, release; the first time takes some minutes)"
PATH="$PWD/.venv/bin:$PATH" .venv/bin/maturin build --release --locked --quiet -m engine/crates/python/Cargo.toml \
  --out .cache/wheels --interpreter .venv/bin/python
newest=$(ls -t .cache/wheels/mrtc_engine-*.whl | head -1)
.venv/bin/uv pip install --quiet --python .venv/bin/python --no-deps --force-reinstall "$newest"
echo "$sum" > .cache/engine.sum
