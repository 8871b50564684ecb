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

if [ $# -gt 0 ]; then files=("$@"); else
    mapfile -t files < <(find pipelines/src -name '*.rs' -not -name tests.rs -not -path '*/tests/*' -not -name samples.rs | sort)
fi

# Debug builds without debug information, in a target folder of their own that all files share.
export CARGO_TARGET_DIR=$out/target CARGO_PROFILE_DEV_DEBUG=false CARGO_PROFILE_TEST_DEBUG=false CARGO_INCREMENTAL=1
export WINDLASS_SIM_SEEDS=${WINDLASS_SIM_SEEDS:-150} PROPTEST_CASES=${PROPTEST_CASES:-32} INSTA_UPDATE=no
look() {
    nice -n 19 "$mutants" mutants --dir . --package pipelines --file "$file" --test-package "$1" \
        --output "$home" --jobs 1 --timeout 120 --build-timeout 600 --no-shuffle --colors never \
        --copy-target false --cargo-arg=--config=profile.dev.package.simulation.opt-level=0 "${@:2}" -- --lib --tests </dev/null
    # Status 2: some were missed, 3: some never ended, which is noticed as well.
    case $? in
    0 | 2 | 3) ;;
    *) echo "mutants: $file: cargo-mutants failed, see $home/mutants.out/log" >&2; exit 1 ;;
    esac
}

for file in "${files[@]}"; do
    name=$(printf %s "${file#pipelines/src/}" | tr / -)
    home=$out/$name
    content=$(sha256sum <"$file")
    if [ "$(cat "$home/done" 2>/dev/null)" = "$content" ]; then continue; fi
    rm -rf "$home"
    mkdir -p "$home"
    echo "=== $file"
    # The unit tests notice most and take the least time; the lives only get what they left.
    look pipelines
    [ ! -s "$home/mutants.out/missed.txt" ] || look pipelines,simulation --iterate
    echo "$content" >"$home/done"
done

# With --iterate, what was noticed before is kept in a file of its own.
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
