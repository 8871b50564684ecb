#!/usr/bin/env bash
# Installs and builds the real parts that the tests use: `make parts`, or `scripts/parts.sh [PART…]`.
# Parts: debian base axe prometheus cargo-deny helm gitea, and bench for `make bench`, cargo-mutants for `make mutants`.
# What is there already is left alone, so a second call takes a second.
# What takes minutes to build goes, keyed by version, into WINDLASS_PARTS_DIR (default ~/.cache/windlass-parts).
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/path.sh

PARTS_DIR=${WINDLASS_PARTS_DIR:-$HOME/.cache/windlass-parts}
GITEA_VERSION=1.26.0
AXE_VERSION=4.14.1
CARGO_DENY_VERSION=0.20.2
CARGO_MUTANTS_VERSION=27.1.0
HELM_VERSION=3.21.4

mkdir -p "$PARTS_DIR"
exec 9>"$PARTS_DIR/lock"
flock 9

say() { printf 'parts: %s\n' "$*"; }
missing=()
lack() { say "$1: MISSING: $2"; missing+=("$1"); }

# A Debian package for each command or file that the tests look for.
packages() {
    cat <<'LIST'
/usr/sbin/dockerd docker.io
/usr/sbin/iptables iptables
ip iproute2
ssh openssh-client
/usr/bin/docker-registry docker-registry
/usr/bin/htpasswd apache2-utils
/usr/bin/busybox busybox-static
/usr/sbin/sshd openssh-server
/usr/bin/chromium chromium
/usr/bin/chromedriver chromium-driver
/usr/share/doc/fonts-noto-cjk fonts-noto-cjk
/usr/lib/python3/dist-packages/aiosmtpd python3-aiosmtpd
git git
gcc gcc
/usr/include/stdio.h libc6-dev
openssl openssl
curl curl
npm npm
LIST
}

# What the benches compare with.
bench_packages() {
    cat <<'LIST'
nginx nginx-light
skopeo skopeo
wrk wrk
LIST
}

debian() { install_packages debian < <(packages); }
bench() { install_packages bench < <(bench_packages); }

# Installs the packages that standard input lists, for the part $1.
install_packages() {
    local part=$1
    command -v apt-get >/dev/null || { lack "$part" "this is not a Debian system: install the packages of scripts/parts.sh by hand"; return; }
    local want=() probe package
    while read -r probe package; do
        case $probe in
        /*) [ -e "$probe" ] || want+=("$package") ;;
        *) command -v "$probe" >/dev/null || want+=("$package") ;;
        esac
    done
    if [ ${#want[@]} -eq 0 ]; then say "$part: all packages are there"; return; fi
    if [ "$(id -u)" != 0 ]; then
        lack "$part" "as root: apt-get install --no-install-recommends ${want[*]}"
        return
    fi
    # No service may start by itself: the tests start what they need, on ports and folders of their own.
    local policy=/usr/sbin/policy-rc.d
    if [ ! -e $policy ]; then
        printf '#!/bin/sh\nexit 101\n' >$policy
        chmod +x $policy
        trap 'rm -f /usr/sbin/policy-rc.d' EXIT
    fi
    local log="$PARTS_DIR/apt.log"
    export DEBIAN_FRONTEND=noninteractive
    if { apt-get update -q && apt-get install -y -q --no-install-recommends "${want[@]}"; } >"$log" 2>&1 </dev/null; then
        say "$part: installed ${want[*]}"
    else
        tail -n 15 "$log"
        lack "$part" "apt-get failed for ${want[*]} (whole output: $log)"
    fi
}

gitea() {
    local home="$PARTS_DIR/gitea-$GITEA_VERSION" source
    if [ -x "$home/gitea" ] && [ -d "$home/static/templates" ]; then say "gitea: $GITEA_VERSION is there"; return; fi
    command -v go >/dev/null || { lack gitea "Go 1.21 or newer is not on PATH (it fetches the Go that Gitea asks for): https://go.dev/dl"; return; }
    say "gitea: building $GITEA_VERSION, once, about 8 minutes"
    mkdir -p "$home/static"
    if ! (cd tests/go/gitea && CGO_ENABLED=1 go build -trimpath -tags 'sqlite sqlite_unlock_notify' \
        -ldflags "-s -w -X main.version=$GITEA_VERSION" -o "$home/gitea.new" .); then
        lack gitea "go build failed in tests/go/gitea"
        return
    fi
    source=$(cd tests/go/gitea && go list -m -f '{{.Dir}}' code.gitea.io/gitea)
    # Templates and options are read at run time; a cleaned module cache must not take them away.
    rm -rf "$home/static/templates" "$home/static/options"
    cp -r "$source/options" "$source/templates" "$home/static/"
    chmod -R u+w "$home/static"
    mv "$home/gitea.new" "$home/gitea"
}

axe() {
    local home="$PARTS_DIR/axe-core-$AXE_VERSION"
    if [ -s "$home/axe.min.js" ]; then say "axe: $AXE_VERSION is there"; return; fi
    command -v npm >/dev/null || { lack axe "npm is not on PATH: apt-get install --no-install-recommends npm"; return; }
    local tmp
    tmp=$(mktemp -d "$PARTS_DIR/axe.XXXXXX")
    if (cd "$tmp" && npm pack --silent "axe-core@$AXE_VERSION" >/dev/null && tar -xzf axe-core-*.tgz package/axe.min.js); then
        mkdir -p "$home"
        mv "$tmp/package/axe.min.js" "$home/axe.min.js"
        say "axe: fetched $AXE_VERSION"
    else
        lack axe "npm pack axe-core@$AXE_VERSION failed"
    fi
    rm -rf "$tmp"
}

# Unpacked and not installed: Debian's package brings a service and the libraries of a page that nobody opens.
prometheus() {
    local home="$PARTS_DIR/prometheus" tmp
    if [ -x "$home/usr/bin/promtool" ]; then say "prometheus: is there"; return; fi
    command -v dpkg >/dev/null || { lack prometheus "this is not a Debian system: put prometheus and promtool into $home/usr/bin"; return; }
    tmp=$(mktemp -d "$PARTS_DIR/prometheus.XXXXXX")
    if (cd "$tmp" && apt-get download -q prometheus >/dev/null 2>&1 && dpkg -x prometheus_*.deb new); then
        mkdir -p "$home/usr/bin"
        mv "$tmp"/new/usr/bin/prometheus "$tmp"/new/usr/bin/promtool "$home/usr/bin/"
        say "prometheus: fetched $(cd "$tmp" && ls prometheus_*.deb)"
    else
        lack prometheus "apt-get download prometheus failed"
    fi
    rm -rf "$tmp"
}

# The base image of the tests, FROM scratch: one static busybox with all its names.
base() {
    local version home tmp
    version=$(dpkg-query -W -f '${Version}' busybox-static 2>/dev/null) || { lack base "package busybox-static is not installed"; return; }
    home="$PARTS_DIR/busybox-$(printf %s "$version" | tr -c 'A-Za-z0-9.\n' _)"
    if [ ! -s "$home/rootfs.tar" ]; then
        tmp=$(mktemp -d "$PARTS_DIR/base.XXXXXX")
        mkdir -p "$tmp"/{bin,dev,etc,home,proc,root,sys,tmp,usr,var} "$home"
        chmod 755 "$tmp"
        chmod 1777 "$tmp/tmp"
        cp /usr/bin/busybox "$tmp/bin/busybox"
        for name in $(/usr/bin/busybox --list); do [ "$name" = busybox ] || ln -s busybox "$tmp/bin/$name"; done
        ln -s ../bin "$tmp/usr/bin"
        printf 'root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/:/bin/false\n' >"$tmp/etc/passwd"
        printf 'root:x:0:\nnogroup:x:65534:\n' >"$tmp/etc/group"
        tar -C "$tmp" --sort=name --mtime=@0 --owner=0 --group=0 --numeric-owner -cf "$home/rootfs.tar.new" .
        mv "$home/rootfs.tar.new" "$home/rootfs.tar"
        rm -rf "$tmp"
    fi
    ln -sfn "$home" "$PARTS_DIR/busybox"
    say "base: busybox $version"
}

# The oracle of the charts' tests; the product never runs it.
helm() {
    local home="$PARTS_DIR/helm-$HELM_VERSION"
    if [ -x "$home/helm" ]; then say "helm: $HELM_VERSION is there"; return; fi
    command -v go >/dev/null || { lack helm "Go 1.21 or newer is not on PATH (it fetches the Go that Helm asks for): https://go.dev/dl"; return; }
    say "helm: building $HELM_VERSION, once, about 2 minutes"
    # The version is said to be Helm's own: `go install` alone leaves it at that of the branch.
    if ! GOBIN="$home.new" CGO_ENABLED=0 go install -trimpath \
        -ldflags "-s -w -X helm.sh/helm/v3/internal/version.version=v$HELM_VERSION" "helm.sh/helm/v3/cmd/helm@v$HELM_VERSION"; then
        lack helm "go install failed"
        return
    fi
    mkdir -p "$home"
    mv "$home.new/helm" "$home/helm"
    rmdir "$home.new"
}

cargo_deny() { cargo_tool cargo-deny "$CARGO_DENY_VERSION"; }
cargo_mutants() { cargo_tool cargo-mutants "$CARGO_MUTANTS_VERSION"; }

# Builds the tool $1 of version $2 from crates.io.
cargo_tool() {
    local name=$1 version=$2 home="$PARTS_DIR/$1-$2"
    if [ -x "$home/bin/$name" ]; then say "$name: $version is there"; return; fi
    command -v "${CARGO:-cargo}" >/dev/null || { lack "$name" "cargo is not on PATH: https://rustup.rs"; return; }
    say "$name: building $version, once, about 2 minutes"
    # Unoptimised: it runs for a second, and an optimised build takes longer than it ever saves.
    if ! (cd "$PARTS_DIR" && CARGO_PROFILE_RELEASE_OPT_LEVEL=0 CARGO_TARGET_DIR="$home/target" \
        "${CARGO:-cargo}" install --quiet --locked --root "$home" "$name@$version"); then
        lack "$name" "cargo install failed"
        return
    fi
    rm -rf "$home/target"
}

[ $# -gt 0 ] || set -- debian base axe prometheus cargo-deny helm gitea
for part in "$@"; do
    started=$SECONDS
    case $part in
    debian | bench | gitea | axe | base | helm | prometheus) "$part" ;;
    cargo-deny) cargo_deny ;;
    cargo-mutants) cargo_mutants ;;
    *) say "no part is called $part; there are: debian base axe prometheus cargo-deny helm gitea, bench and cargo-mutants"; exit 2 ;;
    esac
    took=$((SECONDS - started))
    [ $took -lt 2 ] || say "$part: took $took s"
done
if [ ${#missing[@]} -gt 0 ]; then
    say "missing: ${missing[*]}"
    exit 1
fi
