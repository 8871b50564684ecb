#!/usr/bin/env bash
# `make soak`: the long tests. WINDLASS_SOAK_MINUTES (1) is how long each of the three takes, about: what is changed and
# killed at random (tests/tests/soak.rs), kills of the store, lives of the simulated train.
set -uo pipefail
cd "$(dirname "$0")/.."
. scripts/path.sh
cargo=${CARGO:-cargo}
minutes=${WINDLASS_SOAK_MINUTES:-1}
export WINDLASS_SOAK_MINUTES=$minutes
# What one minute holds on two cores, roughly.
export WINDLASS_STORE_KILLS=${WINDLASS_STORE_KILLS:-$((minutes * 80))}
export WINDLASS_SIM_SEEDS=${WINDLASS_SIM_SEEDS:-$((minutes * 4000))}

failed=0
$cargo build --quiet --locked --workspace --all-targets || exit 1
$cargo test --quiet --locked --workspace --test soak || failed=1
$cargo test --quiet --locked --workspace --test store -- kill || failed=1
$cargo test --quiet --locked --workspace --test simulation -- every_promise || failed=1
[ $failed -eq 0 ] && echo "soak: all held" || echo "soak: FAILED"
exit $failed
