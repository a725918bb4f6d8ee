#!/usr/bin/env bash
# Every check there is; the last line is `N passed, N failed`. Called by `make test` after `make setup`.
# A step that fails does not hide the next one; the exit status is non-zero if anything failed.
set -uo pipefail
cd "$(dirname "$0")/.."
export PATH="$PWD/.venv/bin:$PATH"
passed=0
failed=0
log=$(mktemp)
trap 'rm -f "$log"' EXIT

# step NAME COMMAND…: one check.
step() {
  local name=$1 started=$SECONDS
  shift
  if "$@"; then
    passed=$((passed + 1)) && echo "ok      $name ($((SECONDS - started)) s)"
  else
    failed=$((failed + 1)) && echo "FAILED  $name ($((SECONDS - started)) s)"
  fi
}

# counted NAME PATTERN COMMAND…: a command that runs many tests and says how many passed and failed.
# PATTERN is an extended regular expression; the numbers before `passed` and `failed` in its last match count.
counted() {
  local name=$1 pattern=$2 started=$SECONDS status=0 line ok bad
  shift 2
  "$@" 2>&1 | tee "$log" || status=$?
  line=$(sed -E 's/\x1b\[[0-9;]*m//g' "$log" | grep -E "$pattern" | tail -n 1 || true)
  ok=$(grep -oE '[0-9]+ passed' <<<"$line" | grep -oE '[0-9]+' || echo 0)
  bad=$(grep -oE '[0-9]+ (failed|timed out)' <<<"$line" | awk '{ sum += $1 } END { print sum + 0 }' || true)
  bad=${bad:-0}
  if [ "$status" -ne 0 ] && [ "$bad" -eq 0 ]; then bad=1; fi
  if [ "$status" -eq 0 ] && [ "$ok" -eq 0 ]; then bad=1 && echo "$name ran no test"; fi
  passed=$((passed + ok))
  failed=$((failed + bad))
  echo "$([ "$bad" -eq 0 ] && echo ok || echo FAILED)  $name: $ok passed, $bad failed ($((SECONDS - started)) s)"
}

step "fmt" cargo fmt --all --check
step "guest binaries, static" make --no-print-directory guest
step "clippy" cargo clippy --locked --workspace --all-targets --quiet -- -D warnings
counted "tests" 'tests run:' cargo nextest run --locked --workspace --no-fail-fast --status-level fail --final-status-level fail
step "documentation examples" cargo test --locked --doc --quiet -p wardian-agent
step "documentation" env RUSTDOCFLAGS="-D warnings" cargo doc --locked --workspace --no-deps --quiet
step "wardian, for the stock clients" cargo build --locked --quiet -p wardian
counted "stock Agent SDKs" '^[0-9]+ passed, [0-9]+ failed' env WARDIAN="$PWD/target/debug/wardian" tests/sdk/run.sh
counted "conformance with the official Agent SDKs" '^[0-9]+ passed, [0-9]+ failed' env WARDIAN="$PWD/target/debug/wardian" tests/conformance/run.sh
counted "links between pages" '^[0-9]+ passed, [0-9]+ failed' python3 tests/docs/links.py
counted "the code in docs/sessions.md" '^[0-9]+ passed, [0-9]+ failed' env WARDIAN="$PWD/target/debug/wardian" tests/docs/run.sh
counted "the API, fuzzed by its document" '^[0-9]+ passed, [0-9]+ failed' env WARDIAN="$PWD/target/debug/wardian" tests/fuzz/run.sh
step "cargo-deny" cargo deny --all-features check --hide-inclusion-graph bans licenses sources

echo "$passed passed, $failed failed"
[ "$failed" -eq 0 ]
