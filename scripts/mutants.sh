#!/usr/bin/env bash
# `make mutants`: changes the domain (pipelines) in small ways, one after the other, and sees whether its tests or a few
# simulated lives notice. Goes file by file; what was done with the same sources is not done again. The survivors must
# stand in pipelines/mutants.md with a reason; `scripts/mutants.sh FILE…` does these files alone.
# Results: target/mutants/FILE/mutants.out, and summary.json, which `make soak` reads.
set -uo pipefail
cd "$(dirname "$0")/.."
. scripts/path.sh
parts=${WINDLASS_PARTS_DIR:-${HOME:-/root}/.cache/windlass-parts}
target=$PWD/${CARGO_TARGET_DIR:-target}
case ${CARGO_TARGET_DIR:-} in /*) target=$CARGO_TARGET_DIR ;; esac
out=$target/mutants
mutants=$(ls "$parts"/cargo-mutants-*/bin/cargo-mutants 2>/dev/null | tail -n 1)
[ -n "$mutants" ] || mutants=$(command -v cargo-mutants) || { echo 'mutants: run `scripts/parts.sh cargo-mutants` first' >&2; exit 1; }
mkdir -p "$out"

# All that decides whether a mutant is caught.
sources=$(find pipelines tests/simulation Cargo.lock -type f -not -name '*.md' -print0 | sort -z | xargs -0 sha256sum | sha256sum | cut -d' ' -f1)
if [ $# -gt 0 ]; then files=("$@"); else
    mapfile -t files < <(find pipelines/src -name '*.rs' -not -name tests.rs -not -path '*/tests/*' -not -name samples.rs | sort)
fi

# The lives of the simulation decide quickly, the unit tests look closely; both are debug builds without debug information,
# in a target folder of their own that all files share.
export CARGO_TARGET_DIR=$out/target CARGO_PROFILE_DEV_DEBUG=false CARGO_PROFILE_TEST_DEBUG=false CARGO_INCREMENTAL=1
export WINDLASS_SIM_SEEDS=${WINDLASS_SIM_SEEDS:-150} PROPTEST_CASES=${PROPTEST_CASES:-32} INSTA_UPDATE=no
for file in "${files[@]}"; do
    name=$(printf %s "${file#pipelines/src/}" | tr / -)
    home=$out/$name
    if [ "$(cat "$home/done" 2>/dev/null)" = "$sources" ]; then continue; fi
    rm -rf "$home"
    mkdir -p "$home"
    echo "=== $file"
    # A mutant that never ends is caught as well. Status 2: some were missed, 3: some never ended.
    nice -n 19 "$mutants" mutants --dir . --package pipelines --file "$file" --test-package pipelines,simulation \
        --output "$home" --jobs 1 --timeout 120 --build-timeout 600 --no-shuffle --colors never \
        --copy-target false --cargo-arg=--config=profile.dev.package.simulation.opt-level=0 -- --lib --tests </dev/null
    case $? in
    0 | 2 | 3) echo "$sources" >"$home/done" ;;
    *) echo "mutants: $file: cargo-mutants failed, see $home/mutants.out/log" >&2; exit 1 ;;
    esac
done

count() { cat "$out"/*/mutants.out/"$1".txt 2>/dev/null | grep -c . || true; }
caught=$(($(count caught) + $(count timeout))) missed=$(count missed)
echo "{\"caught\":$caught,\"missed\":$missed}" | tee "$out/summary.json"
# Without line numbers, which move: file, and what was changed.
survivors=$(cat "$out"/*/mutants.out/missed.txt 2>/dev/null | sed -E 's/^([^:]+):[0-9]+:[0-9]+: /\1: /' | sort -u)
unlisted=$(while IFS= read -r line; do
    [ -z "$line" ] || grep -qF -- "\`$line\`" pipelines/mutants.md || echo "$line"
done <<<"$survivors")
if [ -n "$unlisted" ]; then
    echo "mutants: these survive and have no reason in pipelines/mutants.md:"
    echo "$unlisted"
    exit 1
fi
if [ $((caught * 10)) -lt $(((caught + missed) * 9)) ]; then
    echo "mutants: fewer than 90 % are caught"
    exit 1
fi
