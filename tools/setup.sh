#!/usr/bin/env bash
# Brings a machine that has Python 3.11+, Rust, Node and (for tests) apt to where `make run` or `make test` works.
# Idempotent: every step is skipped when its inputs have not changed.
set -euo pipefail
cd "$(dirname "$0")/.."
purpose=${1:-test}
say() { printf '\033[1m==>\033[0m %s\n' "$*"; }
need() { command -v "$1" >/dev/null || { echo "setup: $1 is missing; $2" >&2; exit 1; }; }

need python3 "install Python 3.11 or newer"
need cargo "install Rust 1.90 or newer (https://rustup.rs)"
need node "install Node.js 20 or newer"
need npm "install Node.js 20 or newer"
python3 -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "setup: Python 3.11 or newer is needed" >&2; exit 1; }

if [ "$purpose" != run ]; then
  missing=()
  for pair in chromium:chromium ffmpeg:ffmpeg espeak-ng:espeak-ng turnserver:coturn openssl:openssl pulseaudio:pulseaudio; do
    command -v "${pair%%:*}" >/dev/null || missing+=("${pair##*:}")
  done
  # Debian keeps its programs off the path.
  compgen -G '/usr/lib/postgresql/*/bin/initdb' >/dev/null || command -v initdb >/dev/null || missing+=(postgresql)
  command -v firefox-esr >/dev/null || command -v firefox >/dev/null || missing+=(firefox-esr)
  # GStreamer is a foreign WebRTC stack in tests/interop; its plugins have no programs to look for.
  has_gstreamer() {
    local element
    # Not `--exists`: that compares versions, and nicesrc has that of its own library.
    for element in webrtcbin nicesrc webmmux; do gst-inspect-1.0 "$element" >/dev/null 2>&1 || return 1; done
    /usr/bin/python3 -c "import gi; gi.require_version('GstWebRTC', '1.0'); from gi.repository import GstWebRTC" 2>/dev/null
  }
  if ! has_gstreamer; then
    missing+=(gstreamer1.0-tools gstreamer1.0-nice gstreamer1.0-plugins-{good,bad} python3-gi gir1.2-gst-plugins-{base,bad}-1.0)
  fi
  if [ ${#missing[@]} -gt 0 ]; then
    if command -v apt-get >/dev/null && [ "$(id -u)" = 0 ]; then
      say "installing Debian packages for the tests: ${missing[*]}"
      apt-get update -qq
      DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${missing[@]}" >/dev/null
    else
      echo "setup: the tests need these programs: ${missing[*]} (as root: apt-get install ${missing[*]})" >&2
      exit 1
    fi
  fi
fi

if [ ! -x .venv/bin/python ]; then
  say "making the Python environment .venv"
  python3 -m venv .venv
fi
lock_sum=$(cat requirements.lock tools/setup.sh proto/pyproject.toml deploy/embedded/pyproject.toml services/*/pyproject.toml \
  sdk/python/pyproject.toml | sha256sum)
if [ "$(cat .venv/.mrtc-lock 2>/dev/null)" != "$lock_sum" ]; then
  say "installing Python packages (requirements.lock)"
  .venv/bin/python -m pip install --quiet --disable-pip-version-check "$(grep -oE '^uv==[0-9.]+' requirements.lock)"
  .venv/bin/uv pip sync --quiet --python .venv/bin/python requirements.lock
  tools/gen_proto.sh
  .venv/bin/uv pip install --quiet --python .venv/bin/python --no-deps --no-build-isolation --editable proto \
    $(for d in services/*/ sdk/python deploy/embedded; do echo --editable "$d"; done)
  rm -f .cache/engine.sum
  echo "$lock_sum" > .venv/.mrtc-lock
fi
tools/gen_proto.sh
if [ "$purpose" = everything ]; then
  # The engine's tests are built beside its wheel, of whose build a minute and more is one core's. Errors are told by the tests.
  nice tools/test.sh engine --no-run >/dev/null 2>&1 &
fi
tools/build_engine.sh
tools/build_web.sh
if [ "$purpose" != run ]; then
  (cd engine && cargo build --quiet --release --locked -p mrtc-netem --bin impair)
fi
if [ "$purpose" != run ] && [ ! -d tests/interop/werift/node_modules ]; then
  say "installing the third-party WHEP player"
  npm --prefix tests/interop/werift ci --silent
fi
wait
