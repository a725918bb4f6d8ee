#!/usr/bin/env bash
# Installs the official CLI (364 MiB), of the version that the pinned SDK brings, into the git-ignored target/stock-cli and says
# where it is. Only for comparing with it: `tests/conformance/run.sh --stock`, `scripts/measure-agent.py`. Nothing of `make test`.
set -euo pipefail
root=$(cd "$(dirname "$0")/.." && pwd)
case "$(uname -s)-$(uname -m)" in
  Linux-x86_64) platform=linux-x64 ;;
  Linux-aarch64) platform=linux-arm64 ;;
  Darwin-arm64) platform=darwin-arm64 ;;
  *) echo "stock-cli: no official CLI is known for $(uname -sm)" >&2 && exit 1 ;;
esac
sdk=@anthropic-ai/claude-agent-sdk
version=$(node -p "require('$root/tests/sdk/package-lock.json').packages['node_modules/$sdk'].version")
place=$root/target/stock-cli
cli=$place/node_modules/$sdk-$platform/claude
if [ "$(cat "$place/version" 2>/dev/null)" != "$version" ] || [ ! -x "$cli" ]; then
  echo "stock-cli: installing $sdk-$platform $version" >&2
  mkdir -p "$place"
  npm install --prefix "$place" --no-save --no-audit --no-fund --loglevel=error "$sdk-$platform@$version" >&2
  echo "$version" >"$place/version"
fi
ln -sf "$cli" "$place/claude"
echo "$place/claude"
