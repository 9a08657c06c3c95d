#!/usr/bin/env bash
# Generates the Python packages `mrtc.*` from proto/ into proto/gen/python (git-ignored), with type stubs.
set -euo pipefail
cd "$(dirname "$0")/.."
out=proto/gen/python
stamp=$out/.stamp
sources=$(find proto/mrtc -name '*.proto' | sort)
if [ -f "$stamp" ] && [ -z "$(find $sources tools/gen_proto.sh -newer "$stamp")" ]; then exit 0; fi
# Written beside and swapped in, so that a running import never sees half of it.
rm -rf "$out.new" && mkdir -p "$out.new"
PATH="$PWD/.venv/bin:$PATH" .venv/bin/python -m grpc_tools.protoc -I proto \
  --python_out="$out.new" --grpc_python_out="$out.new" --mypy_out="$out.new" --mypy_grpc_out="$out.new" $sources
find "$out.new/mrtc" -type d -exec touch {}/__init__.py {}/py.typed \;
rm -rf "$out" && mv "$out.new" "$out"
touch "$stamp"
echo "generated $out"
