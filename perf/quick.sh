#!/usr/bin/env bash
# The quick load check: mosquitto and the gateway in turn, each on core 0, the load on core 1.
# Prints one table of medians and ratios, and keeps the reports. See perf/README.md.
#
#   perf/quick.sh            everything
#   ROUNDS=1 DURATION=3 perf/quick.sh
#
# A server that is not installed or not built is left out, loudly. Exit 1 if any run failed.
set -euo pipefail
cd "$(dirname "$0")/.."

ROUNDS=${ROUNDS:-3}
DURATION=${DURATION:-10}
PAIRS=${PAIRS:-500}
DEPTHS=${DEPTHS:-"1 16"}
CONNECTIONS=${CONNECTIONS:-15000}
BASE=${BASE:-3000}
TARGET=${CARGO_TARGET_DIR:-target}/release
RINGPOST=${RINGPOST:-$TARGET/ringpost}
PERF=${PERF:-$TARGET/ringpost-perf}
MOSQUITTO=${MOSQUITTO:-$(PATH=$PATH:/usr/sbin command -v mosquitto || true)}
OUT=${OUT:-$(mktemp -d)}
mkdir -p "$OUT"
work=$(mktemp -d)
mqtt_port=18883 ws_port=19195 wss_port=19443 http_port=19080

server=
stop_server() {
    [ -n "$server" ] || return 0
    kill "$server" 2>/dev/null || true
    wait "$server" 2>/dev/null || true
    server=
}
trap 'stop_server; rm -rf "$work"' EXIT

say() { echo "$@" >&2; }

# The rival's own documented settings: no log, no persistence, no limit that would drop messages.
write_configs() {
    cat >"$work/mosquitto.conf" <<END
listener $mqtt_port 127.0.0.1
allow_anonymous true
persistence false
log_type none
set_tcp_nodelay true
max_inflight_messages 0
max_queued_messages 0
END
    cat >"$work/ringpost.toml" <<END
[node]
shards = 1
data_dir = "$work/data"
[[listener]]
protocol = "binary"
transport = "ws"
bind = "127.0.0.1:$ws_port"
path = "/ws"
[[listener]]
protocol = "binary"
transport = "wss"
bind = "127.0.0.1:$wss_port"
path = "/wss"
[http]
bind = "127.0.0.1:$http_port"
[auth]
mode = "open"
[store]
backend = "embedded"
[delivery]
ack = "safe"
END
}

# start PORT COMMAND...: on core 0, until PORT accepts. The pid is in $server.
start() {
    local port=$1
    shift
    taskset -c 0 "$@" >"$OUT/server.log" 2>&1 &
    server=$!
    for _ in $(seq 100); do
        if (exec 3<>"/dev/tcp/127.0.0.1/$port") 2>/dev/null; then return 0; fi
        kill -0 "$server" 2>/dev/null || break
        sleep 0.1
    done
    say "did not start: $*"
    cat "$OUT/server.log" >&2
    exit 1
}

start_mosquitto() { start "$mqtt_port" "$MOSQUITTO" -c "$work/mosquitto.conf"; }
start_ringpost() {
    rm -rf "$work/data"
    start "$ws_port" "$RINGPOST" serve --config "$work/ringpost.toml"
}

failed=0
# load NAME LABEL SCENARIO ARGS...: one run on core 1, its report in $OUT/NAME.json.
load() {
    local name=$1 label=$2 scenario=$3
    shift 3
    say "== $name"
    taskset -c 1 "$PERF" "$scenario" --label "$label" --server-pid "$server" \
        --duration "$DURATION" --json "$OUT/$name.json" "$@" >&2 || failed=1
}

mqtt="--protocol mqtt --qos 1 --url tcp://127.0.0.1:$mqtt_port"
ws="--protocol binary --url ws://127.0.0.1:$ws_port/ws"
wss="--protocol binary --url wss://127.0.0.1:$wss_port/wss"

# Each run meets a fresh server, so that no run inherits another's memory or stored messages.
# shellcheck disable=SC2086
one() { # one NAME LABEL SERVER SCENARIO ARGS...
    local name=$1 label=$2 kind=$3 scenario=$4
    shift 4
    "start_$kind"
    load "$name" "$label" "$scenario" "$@"
    stop_server
}

# shellcheck disable=SC2086
main() {
    ulimit -n "$(ulimit -Hn)"
    write_configs
    [ -x "$PERF" ] || cargo build --release -p perf
    local rival=$MOSQUITTO gateway=
    [ -n "$rival" ] || say "mosquitto is not installed (apt install mosquitto): left out"
    if [ -x "$RINGPOST" ]; then gateway=1; else say "no $RINGPOST (cargo build --release): left out"; fi

    local round depth
    for round in $(seq "$ROUNDS"); do
        for depth in $DEPTHS; do
            local shape="--pairs $PAIRS --depth $depth"
            [ -z "$rival" ] || one "pairs-$depth-$round-0" mosquitto mosquitto pairs $mqtt $shape
            [ -z "$gateway" ] || one "pairs-$depth-$round-1" ringpost ringpost pairs $ws $shape
            if [ -n "$gateway" ]; then one "pairs-$depth-$round-2" "ringpost wss" ringpost pairs $wss $shape; fi
        done
        [ -z "$rival" ] || one "connect-$round-0" mosquitto mosquitto connect $mqtt
        [ -z "$gateway" ] || one "connect-$round-1" ringpost ringpost connect $ws
    done
    local idle="--connections $CONNECTIONS --base $BASE"
    [ -z "$rival" ] || one idle-0 mosquitto mosquitto idle $mqtt $idle
    [ -z "$gateway" ] || one idle-1 ringpost ringpost idle $ws $idle
    [ -z "$gateway" ] || one idle-2 "ringpost wss" ringpost idle $wss $idle

    echo "$(date -u +%F) $(uname -r) $(nproc) cores, $(grep -m1 'model name' /proc/cpuinfo | cut -d: -f2)"
    echo "reports: $OUT"
    # The rival comes first in every glob, so the ratios are to it.
    "$PERF" table "$OUT"/*.json || failed=1
    return $failed
}

main
