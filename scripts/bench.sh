#!/usr/bin/env bash
# Measures the hot paths, each beside its peer or limit in the same run, in about four minutes. Called by `make bench`, which
# builds first. On a machine that does something else the numbers say little: look at the load that is printed.
set -euo pipefail
cd "$(dirname "$0")/.."
benches=("wardian-sandbox create" "wardian-store commit" "wardian first_light" "wardian sessions")
echo "building"
for bench in "${benches[@]}"; do
  read -r crate name <<<"$bench"
  cargo bench --locked --quiet -p "$crate" --bench "$name" --no-run
done
echo "$(uname -sr), $(nproc) cores, load $(cut -d ' ' -f 1-3 /proc/loadavg)"
for bench in "${benches[@]}"; do
  read -r crate name <<<"$bench"
  echo
  echo "\$ cargo bench -p $crate --bench $name"
  cargo bench --locked --quiet -p "$crate" --bench "$name"
done
