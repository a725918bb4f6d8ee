#!/usr/bin/env bash
# Measures the hot paths, each beside its peer or limit in the same run, in about a minute. Called by `make bench`, which
# builds first. On a machine that does something else the numbers say little: look at the load that is printed.
set -euo pipefail
cd "$(dirname "$0")/.."
echo "building"
cargo bench --locked --quiet -p wardian-sandbox --bench create --no-run
cargo bench --locked --quiet -p wardian --bench first_light --no-run
echo "$(uname -sr), $(nproc) cores, load $(cut -d ' ' -f 1-3 /proc/loadavg)"
echo
cargo bench --locked --quiet -p wardian-sandbox --bench create
echo
cargo bench --locked --quiet -p wardian --bench first_light
