#!/usr/bin/env bash
# Strict type checking of every Python package, each from its own src folder.
set -euo pipefail
cd "$(dirname "$0")/.."
export PATH="$PWD/.venv/bin:$PATH"
MYPYPATH=proto/gen/python:engine/python$(for d in services/*/src sdk/python/src deploy/embedded/src; do printf ':%s' "$d"; done)
export MYPYPATH
mypy -p mrtc_common -p mrtc_signaling -p mrtc_master -p mrtc_rtcmcu -p mrtc_rtcrecorder -p mrtc_rtcvod \
  -p mrtc_sdk -p mrtc_embedded -p mrtc_engine
