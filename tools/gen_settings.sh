#!/usr/bin/env bash
# Writes deploy/config/<service>.yaml: every setting of every service with its default, unit and meaning.
set -euo pipefail
cd "$(dirname "$0")/.."
for service in signaling master rtcmcu rtcrecorder rtcvod; do
  env -i PATH="$PATH" .venv/bin/python -m "mrtc_$service" --print-config > "deploy/config/$service.yaml"
done
