#!/usr/bin/env bash
# `make demo`: installs what is missing, builds, and runs `windlass demo` with the arguments given.
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/path.sh
command -v cargo >/dev/null || { echo "demo: Rust is missing: install it from https://rustup.rs, then run make demo again" >&2; exit 1; }
# Standard output belongs to the demo: it may be JSON.
scripts/parts.sh debian base >&2
cargo build --quiet --locked --package server --bin windlass
exec "${CARGO_TARGET_DIR:-target}/debug/windlass" demo "$@"
