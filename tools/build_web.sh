#!/usr/bin/env bash
# Builds the web SDK and the demo page; skipped when their sources have not changed.
set -euo pipefail
cd "$(dirname "$0")/.."
mkdir -p .cache
sum=$(find sdk/web proto/mrtc -type f -not -path '*/node_modules/*' -not -path '*/dist*/*' -not -path '*/gen/*' -print0 |
  sort -z | xargs -0 sha256sum | sha256sum)
if [ "$(cat .cache/web.sum 2>/dev/null)" = "$sum" ] && [ -d sdk/web/dist-demo ]; then exit 0; fi
printf '\033[1m==>\033[0m %s\n' "building the web SDK and the demo page"
cd sdk/web
npm ci --silent
npm run --silent build
cd ../..
echo "$sum" > .cache/web.sum
