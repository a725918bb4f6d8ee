#!/usr/bin/env bash
# Asks a real server whatever its own OpenAPI document allows, and more: no answer may be a 5xx, and each must be what the
# document says. Schemathesis is pinned by hash, in an environment of its own.
#   WARDIAN        the server under test (default target/debug/wardian)
#   WARDIAN_AGENT  the agent beside wardian-guest (default target/guest/wardian-agent)
#   EXAMPLES=n     requests of each kind for each route (default 12: under a minute)
#   SEED=n         the requests of that run again
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
root=$(cd "$here/../.." && pwd)
target=${CARGO_TARGET_DIR:-$root/target}
wardian=${WARDIAN:-$target/debug/wardian}
agent=${WARDIAN_AGENT:-$target/guest/wardian-agent}
venv=${FUZZ_VENV:-$root/.venv/fuzz}

want=$(sha256sum "$here/requirements.txt" | cut -d' ' -f1)
if [ "$(cat "$venv/.stamp" 2>/dev/null)" != "$want" ]; then
  echo "setup: installing schemathesis"
  python3 -m venv "$venv"
  "$venv/bin/pip" install --quiet --disable-pip-version-check --require-hashes -r "$here/requirements.txt"
  echo "$want" >"$venv/.stamp"
fi

place=$(mktemp -d)
cleanup() {
  for process in $(jobs -p); do
    kill -KILL "$process" 2>/dev/null || true
    wait "$process" 2>/dev/null || true
  done
  rm -rf "$place"
}
trap cleanup EXIT
# ready FILE KEY: waits for a server's first line and prints a field of it.
ready() {
  for _ in $(seq 200); do
    if [ -s "$1" ]; then
      python3 -c 'import json, sys; print(json.loads(open(sys.argv[1]).readline())[sys.argv[2]])' "$1" "$2"
      return
    fi
    sleep 0.05
  done
  echo "a server did not start" >&2
  cat "$place"/*.log >&2
  return 1
}

echo '{"replies": [{"repeat": true, "echo": true}]}' >"$place/script.json"
"$wardian" model --script "$place/script.json" --listen 127.0.0.1:0 >"$place/model.json" 2>"$place/model.log" &
upstream=$(ready "$place/model.json" base_url)
export ANTHROPIC_API_KEY=sk-ant-fuzz WARDIAN_LIBEXEC_DIR=$(dirname "$agent")
printf "[server]\nfailed_logins_per_minute = 1000000\n" >"$place/wardian.toml"
"$wardian" serve --config "$place/wardian.toml" --allow-no-cgroup --listen 127.0.0.1:0 --data-dir "$place/data" --upstream "$upstream" \
  >"$place/server.json" 2>"$place/server.log" &
url=$(ready "$place/server.json" base_url)
key=$("$wardian" keys create --data-dir "$place/data" --name fuzz --scope admin)

status=0
# It keeps what it learned in the current folder.
cd "$place"
# A stream has no end, and a run a sandbox each: they have tests of their own.
"$venv/bin/schemathesis" run "$root/docs/openapi.json" --url "$url" \
  --header "x-api-key: $key" --max-examples "${EXAMPLES:-12}" --seed "${SEED:-1}" \
  --exclude-checks positive_data_acceptance --warnings off --no-color \
  --exclude-path-regex '/events/stream$|^/v1/x/run$' || status=$?
if grep -E '"(level|message)":"(ERROR|.*panicked)' "$place/server.log" | head -5 | grep .; then
  echo "the server logged errors"
  status=1
fi
if [ "$status" -eq 0 ]; then echo "1 passed, 0 failed"; else echo "0 passed, 1 failed"; fi
exit "$status"
