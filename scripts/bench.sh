#!/usr/bin/env bash
# Measures the release build and makes the table: target/bench/summary.json. Ends well when every row has a figure.
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/path.sh

scripts/parts.sh debian base bench
cargo build --release --locked --package server --package tests --bins --bench '*'
# A release build has no switches of the tests.
! grep -q WINDLASS_WITHOUT "${CARGO_TARGET_DIR:-target}/release/windlass" ||
    { echo "bench: the release build can leave safeguards out" >&2; exit 1; }
folder=${CARGO_TARGET_DIR:-target}/bench
mkdir -p "$folder"
# A table is of one run.
rm -f "$folder/rows.jsonl" "$folder/summary.json"
started=$SECONDS
cargo bench --locked --package tests --bench '*'
echo "bench: measured for $((SECONDS - started)) s"
cargo run --release --quiet --locked --package tests --bin bench
