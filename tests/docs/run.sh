#!/usr/bin/env bash
# Runs every code block of docs/sessions.md, in order, against a real `wardian serve` with the scripted model of that page,
# and compares what is printed with what the page says behind `=>`. The last line is `N passed, N failed`.
#   WARDIAN        the binary under test (default target/debug/wardian)
#   WARDIAN_AGENT  the agent that goes into sandboxes (default target/guest/wardian-agent)
set -uo pipefail
here=$(cd "$(dirname "$0")" && pwd)
root=$(cd "$here/../.." && pwd)
target=${CARGO_TARGET_DIR:-$root/target}
export WARDIAN=${WARDIAN:-$target/debug/wardian}
export WARDIAN_AGENT=${WARDIAN_AGENT:-$target/guest/wardian-agent}
for program in "$WARDIAN" "$WARDIAN_AGENT"; do
  [ -x "$program" ] || { echo "no $program: \`cargo build -p wardian\` and \`make guest\` build it"; echo "0 passed, 1 failed"; exit 1; }
done
"$root/tests/sdk/setup.sh" || { echo "0 passed, 1 failed"; exit 1; }
exec "$root/.venv/bin/python" "$here/run.py" "$root/docs/sessions.md"
