#!/usr/bin/env bash
# `make soak PART=off`: takes the safeguards of docs/promises.md away, one after the other, and sees that the tests that
# demand them fail then. tests/off/NAME.patch takes one away; before the diff it says
#   Promise: its number            Safeguard: what is taken away
#   Test: FILE::FUNCTION           the test that must fail
#   Run: -p server --lib PLACE     arguments for `cargo test --locked`, the whole name of the test last
#   Says: TEXT                     words of the failure, which tell it from any other (may be left out)
#   Build: -p server --bin X       arguments for `cargo build --locked`, where the test starts a program of ours
# Test, Run and Says stand once for each test that must fail. `scripts/off.sh NAME…` takes these alone.
# All of it happens in a copy, target/off/tree, with a target folder of its own. What was done with the same patch and
# the same text of the files that it and its tests name is not done again. CARGO is what builds.
# Results: target/off/NAME.log, and target/soak/off.json in the form of tests/src/soak.rs.
set -uo pipefail
cd "$(dirname "$0")/.."
. scripts/path.sh
cargo=${CARGO:-cargo}
target=$PWD/${CARGO_TARGET_DIR:-target}
case ${CARGO_TARGET_DIR:-} in /*) target=$CARGO_TARGET_DIR ;; esac
patches=$PWD/tests/off
out=$target/off
tree=$out/tree
soak=$target/soak
test_seconds_max=600
command -v git >/dev/null || { echo "off: git is needed to apply patches" >&2; exit 1; }
mkdir -p "$tree" "$soak"

# A patch is for the copy, not for the repository around it.
export GIT_CEILING_DIRECTORIES=$out
export CARGO_TARGET_DIR=$out/target INSTA_UPDATE=no
# These tests are no part of the soak, and a part that is missing here must not look like a failure.
unset CARGO WINDLASS_SOAK_DIR WINDLASS_SOAK_SEED WINDLASS_FUZZ_SECONDS WINDLASS_TEST_REQUIRE

# All files of the checkout, by name.
sources() {
    if git rev-parse --is-inside-work-tree >/dev/null 2>&1; then
        git ls-files -z --cached --others --exclude-standard
    else
        find . -path ./target -prune -o -path ./.git -prune -o -type f -printf '%P\0'
    fi
}

# Makes the copy what the checkout is. Writes only what differs, so that cargo builds only what depends on that.
renew() {
    local file
    sources | sort -z >"$out/sources"
    while IFS= read -r -d '' file; do
        if [ ! -f "$file" ] || cmp -s "$file" "$tree/$file"; then continue; fi
        mkdir -p "$tree/$(dirname "$file")" && cp "$file" "$tree/$file"
    done <"$out/sources"
    # What a test has left there, and what the checkout has no more.
    (cd "$tree" && find . -type f -printf '%P\0') | sort -z | comm -z -13 "$out/sources" - |
        (cd "$tree" && xargs -0 --no-run-if-empty rm -f)
}

# The lines `NAME: …` before the diff of a patch.
said() { sed -n -e '/^diff --git /q' -e "s/^$2: //p" "$patches/$1.patch"; }
changed_files() { sed -n 's|^+++ b/||p' "$patches/$1.patch"; }

# What a safeguard is tried with.
content() {
    { cat "$patches/$1.patch"; { changed_files "$1"; said "$1" Test | sed 's/::.*//'; } | sort -u | xargs cat; } | sha256sum
}
is_done() { [ "$(cat "$out/$1.done" 2>/dev/null)" = "$(content "$1")" ]; }

# What became of a test, by what it printed: the words are libtest's, or those of tests/tests/store.rs.
has_passed() { grep -qE "^test result: ok\. 1 passed|^${1%%::*} +${1##*::} +pass " "$2"; }
has_failed() {
    grep -q "^FAILED $1: " "$2" || { grep -q '^test result: FAILED\. 0 passed; 1 failed;' "$2" && grep -qxF "    $1" "$2"; }
}

# Runs one test, which must fail. Prints what is wrong if it does not; `passed` where it held without its safeguard.
run_test() {
    local name=$1 words run=$out/$1.run status
    read -ra words <<<"$2"
    local place=${words[-1]} arguments=("${words[@]:0:${#words[@]}-1}")
    (cd "$tree" && $cargo test --quiet --locked --no-run "${arguments[@]}") </dev/null >"$run" 2>&1
    status=$?
    cat "$run" >>"$out/$name.log"
    if [ $status -ne 0 ]; then echo "it does not compile without its safeguard"; return; fi
    (cd "$tree" && timeout --kill-after=10 $test_seconds_max cargo test --locked "${arguments[@]}" -- --exact "$place") \
        </dev/null >"$run" 2>&1
    status=$?
    cat "$run" >>"$out/$name.log"
    if [ $status -eq 124 ] || [ $status -eq 137 ]; then
        echo "$place was stopped after $test_seconds_max s: it must fail by itself"
    elif grep -q 'SKIPPED ' "$run"; then
        echo "$place was skipped: a part is missing (make parts)"
    elif [ $status -eq 0 ] && has_passed "$place" "$run"; then
        echo passed
    elif [ $status -eq 0 ] || ! has_failed "$place" "$run"; then
        echo "$place did not run"
    elif [ -n "$3" ] && ! grep -qF -- "$3" "$run"; then
        echo "$place fails, but for another reason than: $3"
    fi
}

# Takes one safeguard away and runs its tests.
try() {
    local name=$1 build run words wrong index
    local runs=() says=()
    renew
    if ! (cd "$tree" && git apply --whitespace=nowarn "$patches/$name.patch") >"$out/$name.log" 2>&1; then
        failures+=("$name: the patch no longer applies: make it anew for what stands there now")
        return
    fi
    build=$(said "$name" Build)
    if [ -n "$build" ]; then
        read -ra words <<<"$build"
        if ! (cd "$tree" && $cargo build --quiet --locked "${words[@]}") </dev/null >>"$out/$name.log" 2>&1; then
            failures+=("$name: it does not compile without its safeguard")
            return
        fi
    fi
    mapfile -t runs < <(said "$name" Run)
    # One for each run: what stands between it and the next one.
    mapfile -t says < <(sed -n -e '/^diff --git /q' -e '/^Run: /p' -e '/^Says: /p' "$patches/$name.patch" |
        awk '/^Run: / { if (n++) print say; say = "" } /^Says: / { say = substr($0, 7) } END { if (n) print say }')
    [ ${#runs[@]} -gt 0 ] || { failures+=("$name: the patch names no Run"); return; }
    for index in "${!runs[@]}"; do
        wrong=$(run_test "$name" "${runs[$index]}" "${says[$index]}")
        case $wrong in
        '') ;;
        passed) passed+=("$name"); return ;;
        *) failures+=("$name: $wrong"); return ;;
        esac
    done
    content "$name" >"$out/$name.done"
}

# What is known so far: each safeguard whose tests were seen to fail, or to hold, without it.
note() {
    local name text='' is_whole=true failed=''
    for name in "${all[@]}"; do
        case " ${passed[*]:-} " in *" $name "*) text+=",\"off/$name\":false"; continue ;; esac
        if is_done "$name"; then text+=",\"off/$name\":true"; else is_whole=false; fi
    done
    for name in "${failures[@]}"; do failed+=",\"${name//[\"\\]/}\""; done
    echo "{\"part\":\"off\",\"done\":$is_whole,\"safeguards\":{${text#,}},\"failures\":[${failed#,}]}" >"$soak/off.json"
}

# By the file that they change first: what is built for one serves the next.
mapfile -t all < <(for patch in "$patches"/*.patch; do
    echo "$(grep -m 1 '^+++ b/' "$patch") $(basename "$patch" .patch)"
done | sort | awk '{ print $3 }')
if [ $# -gt 0 ]; then names=("$@"); else names=("${all[@]}"); fi
passed=() failures=()
for name in "${names[@]}"; do
    case " ${all[*]} " in *" $name "*) ;; *) echo "off: there is no tests/off/$name.patch" >&2; exit 2 ;; esac
    if is_done "$name"; then continue; fi
    echo "=== off/$name: $(said "$name" Safeguard)"
    started=$SECONDS wrong_before=$((${#failures[@]} + ${#passed[@]}))
    try "$name"
    if [ $((${#failures[@]} + ${#passed[@]})) -eq $wrong_before ]; then word="its tests fail"; else word="NOT SHOWN, see $out/$name.log"; fi
    echo "off: $name: $word ($((SECONDS - started)) s)"
    note
done
note
for name in "${passed[@]}"; do echo "off: $name: a test holds without its safeguard"; done
for name in "${failures[@]}"; do echo "off: $name"; done
[ $((${#failures[@]} + ${#passed[@]})) -eq 0 ]
