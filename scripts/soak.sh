#!/usr/bin/env bash
# `make soak`: the long tests, part by part; what was shown is kept in target/soak and added up at the end. A part that was
# done with these sources is not run again, so that it can be stopped and goes on: `make soak PART=fuzz` runs one part
# anew. A part notes what it did as `tests::soak` says; a new one is a function here and a word in `all`.
# WINDLASS_SOAK_MINUTES (10): how long the parts that run for a time take. WINDLASS_SOAK_SEEDS (1000000): simulated lives.
# WINDLASS_STORE_KILLS (200): kills of the store per engine. WINDLASS_SOAK_DEATHS (200): random deaths of real processes,
# drawn from WINDLASS_SOAK_SEED (the time). WINDLASS_FUZZ_SECONDS (60): how long each parser is fed.
set -uo pipefail
cd "$(dirname "$0")/.."
. scripts/path.sh
cargo=${CARGO:-cargo}
target=$PWD/${CARGO_TARGET_DIR:-target}
case ${CARGO_TARGET_DIR:-} in /*) target=$CARGO_TARGET_DIR ;; esac
export WINDLASS_SOAK_DIR=$target/soak
export WINDLASS_SOAK_MINUTES=${WINDLASS_SOAK_MINUTES:-10}
mkdir -p "$WINDLASS_SOAK_DIR"

# Notes for itself how far it came with which sources.
simulation() {
    $cargo run --quiet --locked --profile lives -p simulation --bin lives -- "${WINDLASS_SOAK_SEEDS:-1000000}" "$WINDLASS_SOAK_DIR"
}
store() {
    WINDLASS_STORE_KILLS=${WINDLASS_STORE_KILLS:-200} WINDLASS_STORE_ENGINES=redb \
        $cargo test --quiet --locked --workspace --test store -- kill
}
hooks() { $cargo test --quiet --locked --workspace --test soak -- hooks; }
kills() { $cargo test --quiet --locked --workspace --test soak -- kills; }
# Server, gateway, engine, runner and registries die while trains go on; then each safeguard is left out once. Goes on
# after the last whole round.
deaths() {
    $cargo build --quiet --locked --workspace --bins || return
    WINDLASS_SOAK_SOURCES=$sources $cargo test --quiet --locked --workspace --test e2e -- \
        --exact deaths::two_hundred_deaths --nocapture
}
safeguards() {
    $cargo build --quiet --locked --workspace --bins || return
    $cargo test --quiet --locked --workspace --test e2e -- --exact safeguards::without_one_the_same_test_fails --nocapture
}
# One part for each parser: fuzz-NAME. One at a time, so that each has a core for itself.
fuzz() {
    rm -f "$WINDLASS_SOAK_DIR"/fuzz-*.json
    WINDLASS_FUZZ_SECONDS=${WINDLASS_FUZZ_SECONDS:-60} \
        $cargo test --quiet --locked --workspace --lib -- fuzz_ --test-threads=2
}

# Notes for itself, and goes on where it was: one build for each safeguard.
off() { scripts/off.sh; }

all=(simulation store hooks kills safeguards deaths fuzz off)
if [ $# -gt 0 ]; then parts=("$@") again=yes; else parts=("${all[@]}") again=; fi
# What a part was done with.
sources=$({ git ls-files -s; git diff HEAD; } 2>/dev/null | sha256sum | cut -d' ' -f1)

failed=0
for part in "${parts[@]}"; do
    case " ${all[*]} " in *" $part "*) ;; *) echo "soak: there is no part $part, only: ${all[*]}" >&2; exit 2 ;; esac
    stamp=$WINDLASS_SOAK_DIR/$part.done
    if [ -z "$again" ] && [ "$(cat "$stamp" 2>/dev/null)" = "$sources" ]; then
        echo "soak: $part is done with these sources"
        continue
    fi
    rm -f "$stamp"
    echo "=== $part"
    started=$SECONDS
    if "$part" </dev/null; then echo "$sources" >"$stamp"; else failed=1; fi
    echo "soak: $part took $((SECONDS - started)) s"
done
wanted=(simulation store hooks kills safeguards deaths off)
for parser in $(grep -rhozE 'fuzz::feed\(\s*"[a-z-]+"' --include='*.rs' pipelines runner server | tr '\0' '\n' | grep -oE '"[a-z-]+"' | tr -d '"' | sort -u); do
    wanted+=("fuzz-$parser")
done
$cargo run --quiet --locked --package tests --bin soak -- "$WINDLASS_SOAK_DIR" "${wanted[@]}" || failed=1
exit $failed
