#!/usr/bin/env bash
# Runs every libFuzzer target (or those named as arguments) for FUZZ_SECONDS each (default 60). Needs no cargo-fuzz and
# no nightly compiler: its flags are given here, and RUSTC_BOOTSTRAP lets the stable compiler take them.
# What is found is kept: corpora in engine/fuzz/corpus, failing inputs in engine/fuzz/artifacts; both are out of git.
set -euo pipefail
cd "$(dirname "$0")/../engine/fuzz"
seconds=${FUZZ_SECONDS:-60}
triple=$(rustc -vV | sed -n 's/^host: //p')
say() { printf '\033[1m==>\033[0m %s\n' "$*"; }

coverage="-Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4 \
  -Cllvm-args=-sanitizer-coverage-inline-8bit-counters -Cllvm-args=-sanitizer-coverage-pc-table \
  -Cllvm-args=-sanitizer-coverage-trace-compares"
say "building the fuzz targets"
# A target of its own, so that build scripts are built plainly.
RUSTC_BOOTSTRAP=1 RUSTFLAGS="$coverage -Zsanitizer=address --cfg fuzzing" \
  cargo build --release --locked --quiet --target "$triple" --bins

targets=("$@")
if [ ${#targets[@]} -eq 0 ]; then
  for file in fuzz_targets/*.rs; do targets+=("$(basename "$file" .rs)"); done
fi
failed=()
for target in "${targets[@]}"; do
  mkdir -p "corpus/$target" "artifacts/$target"
  seeds=()
  if [ "$target" = sdp_offer ]; then seeds+=(../../tests/vectors/sdp); fi
  if [ "$target" = handover ]; then seeds+=(../../tests/vectors/handover); fi
  say "$target, $seconds s"
  log="artifacts/$target/last.log"
  if "target/$triple/release/$target" "corpus/$target" "${seeds[@]}" -max_total_time="$seconds" -timeout=60 \
    -rss_limit_mb=2048 -max_len=4096 -print_final_stats=1 -artifact_prefix="artifacts/$target/" >"$log" 2>&1; then
    grep -E 'number_of_executed_units|average_exec_per_sec' "$log" | sed 's/^stat::/  /'
  else
    tail -40 "$log"
    failed+=("$target")
  fi
done
if [ ${#failed[@]} -gt 0 ]; then
  echo "fuzz: failed: ${failed[*]}; the inputs are in engine/fuzz/artifacts/" >&2
  exit 1
fi
say "nothing found"
