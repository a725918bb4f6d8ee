#!/usr/bin/env bash
# Installs the stock clients, pinned: npm packages beside this file, Python packages into .venv at the repository's root.
# Does nothing when both are as the lock files say.
set -euo pipefail
cd "$(dirname "$0")"
root=$(cd ../.. && pwd)
digest() { cat "$@" | sha256sum | cut -d' ' -f1; }

# Without its optional packages: they are the official CLI, 364 MiB, in whose place our agent runs.
want=$(digest package.json package-lock.json)
stamp=node_modules/.wardian-stamp
if [ "$(cat $stamp 2>/dev/null)" != "$want" ]; then
  echo "setup: installing the npm clients"
  npm ci --omit=optional --no-audit --no-fund --loglevel=error
  echo "$want" >$stamp
fi

# The Python SDK from its source archive: its wheel brings the same CLI (167 MB).
want=$(digest requirements.txt)
stamp=$root/.venv/.wardian-sdk-stamp
if [ "$(cat "$stamp" 2>/dev/null)" != "$want" ]; then
  echo "setup: installing the Python clients"
  [ -x "$root/.venv/bin/python" ] || python3 -m venv "$root/.venv"
  "$root/.venv/bin/pip" install --quiet --disable-pip-version-check --require-hashes --no-binary claude-agent-sdk \
    -r requirements.txt
  echo "$want" >"$stamp"
fi
