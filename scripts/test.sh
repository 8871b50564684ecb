#!/usr/bin/env bash
# `make test`: every check and test, from the quick to the slow, then the table of what was shown. Goes on after a
# failure, so that one call shows all of them; ends non-zero when anything failed. Arguments: the steps to run.
set -uo pipefail
cd "$(dirname "$0")/.."
. scripts/path.sh
export CARGO_TERM_COLOR=${CARGO_TERM_COLOR:-auto}
cargo=${CARGO:-cargo}
target=${CARGO_TARGET_DIR:-target}
parts=${WINDLASS_PARTS_DIR:-${HOME:-/root}/.cache/windlass-parts}
logs=$target/test-logs

# Steps, in this order. A test binary of tests/tests that is not named here runs after `parts`.
fmt() { $cargo fmt --all --check -- --color never; }
clippy() { $cargo clippy --quiet --locked --workspace --all-targets -- -D warnings; }
deny() {
    local deny
    deny=$(ls "$parts"/cargo-deny-*/bin/cargo-deny 2>/dev/null | tail -n 1)
    [ -n "$deny" ] || deny=$(command -v cargo-deny) || { absent cargo-deny 'run `scripts/parts.sh cargo-deny`'; return; }
    "$deny" --locked check bans licenses sources || return
    # The database cannot be had everywhere; where it is, it counts.
    if compgen -G "${CARGO_HOME:-${HOME:-/root}/.cargo}/advisory-db*/*" >/dev/null; then
        "$deny" --locked check --disable-fetch advisories
    else
        echo "test: advisories: NOT CHECKED, the database is not on this machine (cargo deny fetch db)"
    fi
}
build() { $cargo build --quiet --locked --workspace --all-targets; }
tidy() { run_binary tidy; }
unit() { $cargo test --quiet --locked --workspace --lib --bins; }
doc() { $cargo test --quiet --locked --workspace --doc; }
# Integration tests of the crates themselves: contracts of the outside parties and of the store.
contract() {
    local targets=() file
    for file in {charts,pipelines,runner,server,server/integrations}/tests/*.rs; do
        [ ! -e "$file" ] || targets+=(--test "$(basename "$file" .rs)")
    done
    # Always the whole workspace: another selection is another set of features, and builds everything anew.
    [ ${#targets[@]} -eq 0 ] || $cargo test --locked --workspace "${targets[@]}"
}
run_binary() { $cargo test --locked --workspace --test "$1"; }
evidence() { $cargo run --quiet --locked --package tests --bin evidence -- check; }

# A tool that is missing is a failure where everything is demanded.
absent() {
    echo "test: SKIPPED $1: $2"
    [ "${WINDLASS_TEST_REQUIRE:-}" != all ]
}

steps=(fmt clippy deny build tidy unit doc contract)
for binary in $(for file in tests/tests/*.rs; do basename "$file" .rs; done | awk '
    { place = $1 == "tidy" ? 0 : $1 ~ /^contract/ ? 1 : $1 == "parts" ? 2 : $1 == "pages" ? 4 : $1 ~ /^e2e/ ? 5 : 3
      if (place && $1 != "soak") print place, $1 }' | sort | cut -d" " -f2); do
    steps+=("binary:$binary")
done
steps+=(evidence)
[ $# -eq 0 ] || steps=("$@")

rm -rf "$logs"
mkdir -p "$logs" "$target/evidence"
case " ${steps[*]} " in *" build "*) rm -f "$target"/evidence/*.jsonl ;; esac

# One engine for all test binaries, where the machine runs none.
engine=
if [ -z "${DOCKER_HOST:-}" ] && [ ! -S /var/run/docker.sock ] && [ "$(id -u)" = 0 ] && command -v dockerd >/dev/null; then
    engine=$(mktemp -d /tmp/windlass-test-engine.XXXXXX)
    if scripts/engine.sh start "$engine"; then
        export DOCKER_HOST=unix://$engine/docker.sock
    fi
    trap 'scripts/engine.sh stop "$engine"; rm -rf "$engine"' EXIT
fi

summary=()
failed=0
for step in "${steps[@]}"; do
    log=$logs/${step//[:\/]/-}.log
    echo "=== $step"
    started=$SECONDS
    case $step in
    binary:*) run_binary "${step#binary:}" ;;
    *) "$step" ;;
    esac </dev/null 2>&1 | tee "$log"
    if [ "${PIPESTATUS[0]}" -eq 0 ]; then word=ok; else word=FAILED failed=1; fi
    summary+=("$(printf '%-18s %-6s %5d s' "$step" "$word" $((SECONDS - started)))")
    if [ "$step $word" = "build FAILED" ]; then break; fi
done

echo "=== summary"
# Cargo's own closing lines, so that a reader of the end sees the counts.
for step in "${steps[@]}"; do
    log=$logs/${step//[:\/]/-}.log
    [ -f "$log" ] || continue
    grep -hE '^test result: ' "$log" | grep -v ' 0 passed; 0 failed' | sed "s/^/$step: /"
done
printf '%s\n' "${summary[@]}"
[ $failed -eq 0 ] && echo "test: all passed" || echo "test: FAILED"
exit $failed
