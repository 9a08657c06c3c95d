#!/usr/bin/env bash
# helm lint, render, and validation of every rendered object against the Kubernetes API schemas, offline.
set -euo pipefail
cd "$(dirname "$0")/.."
tools/get_helm.sh
export PATH="$PWD/.cache/bin:$PWD/.venv/bin:$PATH"
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cp -r charts "$work/charts"
cd "$work/charts"
for chart in signaling master rtcmcu rtcrecorder rtcvod mrtc; do
  helm dependency build "$chart" >/dev/null 2>&1 || helm dependency update "$chart" >/dev/null
  helm lint --quiet --strict "$chart"
done
render() { helm template release mrtc --namespace mrtc "$@"; }
render > "$work/default.yaml"
render --set signaling.autoscaling.enabled=true --set rtcmcu.autoscaling.enabled=true \
  --set rtcrecorder.persistence.enabled=true --set nats.enabled=false --set global.existingSecret=own > "$work/full.yaml"
for version in 1.29 1.33; do
  kubernetes-validate -k "$version" --strict --quiet "$work/default.yaml" "$work/full.yaml"
done
