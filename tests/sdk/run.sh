#!/usr/bin/env bash
# Runs the stock clients against the scripted model server and against `wardian serve`, and the Agent SDKs' session helpers on
# what wardian-agent keeps; that the SDKs drive the agent is in tests/conformance. A line a scenario; the last line is
# `N passed, N failed`; non-zero if anything failed.
#   WARDIAN        the binary whose `model` command serves the scripts (default target/debug/wardian, else the example)
#   WARDIAN_AGENT  the agent under test (default target/guest/wardian-agent)
#   ONLY=text      runs the scenarios whose name has this text
set -uo pipefail
here=$(cd "$(dirname "$0")" && pwd)
root=$(cd "$here/../.." && pwd)
target=${CARGO_TARGET_DIR:-$root/target}
export WARDIAN=${WARDIAN:-$target/debug/wardian}
export WARDIAN_AGENT=${WARDIAN_AGENT:-$target/guest/wardian-agent}
example=$target/debug/examples/serve_script

if [ -x "$WARDIAN" ] && "$WARDIAN" model --help >/dev/null 2>&1; then
  export MODEL_COMMAND="[\"$WARDIAN\",\"model\",\"--script\",\"SCRIPT\",\"--log\",\"LOG\",\"--listen\",\"127.0.0.1:0\"]"
elif [ -x "$example" ]; then
  export MODEL_COMMAND="[\"$example\",\"SCRIPT\",\"LOG\"]"
else
  echo "no model server: build one by \`cargo build -p wardian\`" >&2
  echo "0 passed, 1 failed"
  exit 1
fi
[ -x "$WARDIAN_AGENT" ] || { echo "no agent at $WARDIAN_AGENT: build it by \`make guest\`" >&2; echo "0 passed, 1 failed"; exit 1; }
"$here/setup.sh" || { echo "0 passed, 1 failed"; exit 1; }

passed=0
failed=0
# group COMMAND…: one file of scenarios; its last line is its sum.
group() {
  local out line
  out=$("$@")
  line=$(tail -n 1 <<<"$out")
  if [[ $line =~ ^([0-9]+)\ passed,\ ([0-9]+)\ failed$ ]]; then
    passed=$((passed + BASH_REMATCH[1]))
    failed=$((failed + BASH_REMATCH[2]))
    sed '$d' <<<"$out"
  else
    failed=$((failed + 1))
    echo "$out"
    echo "FAILED  $*: ended without a sum"
  fi
}

group node "$here/clients.mjs"
group "$root/.venv/bin/python" "$here/clients.py"
if "$WARDIAN" serve --help >/dev/null 2>&1; then
  group node "$here/sessions.mjs"
  group "$root/.venv/bin/python" "$here/sessions.py"
fi
group node "$here/helpers.mjs"
group "$root/.venv/bin/python" "$here/helpers.py"
echo "$passed passed, $failed failed"
[ "$failed" -eq 0 ]
