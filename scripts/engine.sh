#!/usr/bin/env bash
# A Docker Engine of one's own for experiments, apart from any that the machine runs: scripts/engine.sh start|stop DIR
# It listens on DIR/docker.sock, outlives the shell, and says so in DIR/ready. Tests start theirs in tests/src/docker.rs.
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/path.sh
verb=${1:-} dir=${2:-}
[ -n "$dir" ] || { echo "usage: scripts/engine.sh start|stop DIR" >&2; exit 2; }
pidfile=$dir/pid

alive() { [ -s "$pidfile" ] && kill -0 "$(cat "$pidfile")" 2>/dev/null; }

case $verb in
start)
    command -v dockerd >/dev/null || { echo "dockerd is missing: run scripts/parts.sh debian" >&2; exit 1; }
    if alive; then echo "running: DOCKER_HOST=unix://$dir/docker.sock"; exit 0; fi
    mkdir -p "$dir"
    rm -f "$dir/ready"
    # docker0 stays: a second engine with --bridge=none would delete the first one's bridge.
    setsid nohup dockerd --data-root "$dir/data" --exec-root "$dir/exec" -p "$pidfile" \
        -H "unix://$dir/docker.sock" >"$dir/log" 2>&1 </dev/null &
    for _ in $(seq 1 300); do
        if curl -fsS --max-time 2 --unix-socket "$dir/docker.sock" http://docker/_ping >/dev/null 2>&1; then
            touch "$dir/ready"
            echo "ready: DOCKER_HOST=unix://$dir/docker.sock"
            exit 0
        fi
        sleep 0.1
    done
    echo "dockerd is not ready after 30 s; the end of $dir/log:" >&2
    tail -n 20 "$dir/log" >&2
    exit 1
    ;;
stop)
    rm -f "$dir/ready"
    alive || exit 0
    pid=$(cat "$pidfile")
    kill "$pid"
    while kill -0 "$pid" 2>/dev/null; do sleep 0.1; done
    ;;
*)
    echo "usage: scripts/engine.sh start|stop DIR" >&2
    exit 2
    ;;
esac
