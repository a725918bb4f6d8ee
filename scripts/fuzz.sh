#!/usr/bin/env bash
# Fuzzes what comes from outside, a minute a target or SECONDS_EACH: `scripts/fuzz.sh [target…]`. Needs a nightly toolchain.
# `make test` runs the same targets on their corpora and some thousand mutations, without.
set -euo pipefail
cd "$(dirname "$0")/../fuzz"
each=${SECONDS_EACH:-60}
targets=${*:-sse frames rules transcript}

rustup toolchain list 2>/dev/null | grep -q '^nightly' || { echo "fuzz: rustup toolchain install nightly --profile minimal" >&2; exit 1; }
if ! cargo fuzz --version >/dev/null 2>&1; then
  echo "fuzz: installing cargo-fuzz"
  cargo install --locked --version 0.13.2 cargo-fuzz
fi
for target in $targets; do
  found=$(mktemp -d)
  echo "fuzz: $target, $each s"
  # New inputs go to a folder of the run; what is worth keeping gets a name in corpus/ by hand.
  cargo +nightly fuzz run --fuzz-dir . "$target" "$found" "corpus/$target" -- \
    -max_total_time="$each" -max_len=16384 -timeout=10 -rss_limit_mb=1024 -print_final_stats=1 2>&1 | tail -n 12
  rm -rf "$found"
done
