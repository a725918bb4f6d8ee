#!/usr/bin/env bash
# Runs the conformance scenarios with the stock SDKs against an agent and checks what `suite.mjs` says. A line a scenario; the
# last line is `N passed, N failed`; non-zero if anything failed.
#   AGENT          the program that the SDKs start (default $WARDIAN_AGENT, else target/guest/wardian-agent)
#   WARDIAN        the binary whose `model` command serves the scripts (default target/debug/wardian)
#   ONLY=text      runs the scenarios whose name has this text, and no other check
#   JOBS=4         how many scenarios run at once
#   run.sh --stock CLI   runs them against the stock CLI and records the outcome in stock.json
set -uo pipefail
here=$(cd "$(dirname "$0")" && pwd)
root=$(cd "$here/../.." && pwd)
target=${CARGO_TARGET_DIR:-$root/target}
export WARDIAN=${WARDIAN:-$target/debug/wardian}
export AGENT=${AGENT:-${WARDIAN_AGENT:-$target/guest/wardian-agent}}
export PYTHON=$root/.venv/bin/python
fail() { echo "$1" >&2 && echo "0 passed, 1 failed" && exit 1; }

if [ "${1:-}" = --stock ]; then AGENT=${2:?"the path of the stock CLI"}; fi
# Scenarios run in folders of their own.
AGENT=$(realpath -ms "$AGENT") WARDIAN=$(realpath -ms "$WARDIAN")
if [ "${1:-}" = --stock ]; then set -- --stock "$AGENT"; fi
"$WARDIAN" model --help >/dev/null 2>&1 || fail "no model server at $WARDIAN: build it by \`cargo build -p wardian\`"
export MODEL_COMMAND="${MODEL_COMMAND:-[\"$WARDIAN\",\"model\",\"--script\",\"SCRIPT\",\"--log\",\"LOG\",\"--listen\",\"127.0.0.1:0\"]}"
[ -x "$AGENT" ] || fail "no agent at $AGENT: build it by \`make guest\`"
"$root/tests/sdk/setup.sh" || fail "the stock SDKs could not be installed"
exec node "$here/suite.mjs" "$@"
