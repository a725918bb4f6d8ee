#!/usr/bin/env bash
# Looks for what is rare: a server killed at WARDIAN_KILLS random moments (2,000), and WARDIAN_SIMULATION_SCHEDULES schedules
# of a session's simulation (100,000). WARDIAN_KILL_SEED, which each failure prints, repeats it. Called by `make soak`.
set -euo pipefail
cd "$(dirname "$0")/.."
export WARDIAN_KILLS="${WARDIAN_KILLS:-2000}" WARDIAN_SIMULATION_SCHEDULES="${WARDIAN_SIMULATION_SCHEDULES:-100000}"
cargo nextest run --locked --profile soak -p wardian -E 'test(killed::)' --no-capture
cargo nextest run --locked --profile soak -p wardian-session -E 'test(simulation)' --no-capture
