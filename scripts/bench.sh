#!/usr/bin/env bash
# Measures the hot paths, each beside its peer or limit in the same run. Called by `make bench`.
set -euo pipefail
cd "$(dirname "$0")/.."
cargo bench --locked --quiet -p wardian --bench first_light
