#!/usr/bin/env bash
# The gateway and mosquitto under the same load: the server on one core, the load on another, a
# fresh server for every run, the servers in turn within each round. Prints one table of medians,
# then the required ratios (design, section 8), each the median of the rounds' own ratios. See
# perf/README.md.
#
#   perf/rivals.sh                            everything, three rounds: about twenty-five minutes
#   ROUNDS=1 DURATION=3 perf/rivals.sh        a first look
#   ONLY="pairs idle" perf/rivals.sh          some parts of it; their names are in PARTS below
#
# Installs mosquitto with apt if it is missing; without it only the gateway is measured, loudly.
# Exit 1 if any run failed. A ratio that is missed is printed, and is not a failure.
set -euo pipefail
cd "$(dirname "$0")/.."
# shellcheck source=perf/common.sh
. perf/common.sh

PARTS="pairs wss epoll fanout unacked connect idle open half shards offline overload"
ONLY=${ONLY:-$PARTS}
DURATION=${DURATION:-5}
PAIRS=${PAIRS:-500}
RATE=${RATE:-50000}
MEMBERS=1001
CONNECTIONS=${CONNECTIONS:-15000}
BASE=${BASE:-3000}
SERVER_CORE=${SERVER_CORE:-0}
LOAD_CORE=${LOAD_CORE:-1}
PORT=${PORT:-19190}
OUT=${OUT:-$TARGET/rivals-$(date +%Y%m%d-%H%M%S)}

ws_port=$PORT wss_port=$((PORT + 1)) mqtt_port=$((PORT + 2))
ws=ws://127.0.0.1:$ws_port/ws
wss=wss://127.0.0.1:$wss_port/wss
known=$OUT/figures.tsv

as_root() {
    if [ "$(id -u)" = 0 ]; then "$@"; else sudo "$@"; fi
}

# Sets MOSQUITTO to its program, empty if there is none, and mosquitto_version.
find_mosquitto() {
    PATH=$PATH:/usr/sbin
    if ! type -P mosquitto >/dev/null; then
        say "mosquitto is missing: installing it with apt; Debian starts it as a service, too"
        { as_root apt-get update -q &&
            as_root env DEBIAN_FRONTEND=noninteractive apt-get install -qy mosquitto; } >&2 || true
    fi
    MOSQUITTO=$(type -P mosquitto || true)
    mosquitto_version=
    if [ -n "$MOSQUITTO" ]; then
        # Its help ends with exit code 3.
        mosquitto_version=$("$MOSQUITTO" -h | head -1 || true)
    else
        say "!!! NO MOSQUITTO: only the gateway is measured, without any ratio"
    fi
}

has_epoll() {
    "$RINGPOST" defaults | awk '/^\[/ { in_node = $0 == "[node]" } in_node && /^io = / { found = 1 }
        END { exit !found }'
}

# The rival's own documented settings: no log, no persistence, no delay, no limit that would hold
# messages back or drop them.
write_configs() {
    cat >"$OUT/mosquitto.conf" <<END
listener $mqtt_port 127.0.0.1
allow_anonymous true
persistence false
log_type none
set_tcp_nodelay true
max_inflight_messages 0
max_queued_messages 0
END
    cat >"$OUT/ringpost.toml" <<END
[node]
shards = 1
data_dir = "$(realpath "$OUT")/data"
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
bind = ""
[auth]
mode = "open"
END
}

# rival PART LABEL SCENARIO ARGS...
rival() {
    [ -n "$MOSQUITTO" ] || return 0
    serve "$mqtt_port" "$OUT/mosquitto.log" \
        taskset -c "$SERVER_CORE" "$MOSQUITTO" -c "$OUT/mosquitto.conf"
    run_load "$@" --protocol mqtt --url "tcp://127.0.0.1:$mqtt_port" \
        --server-version "$mosquitto_version"
}

# gateway PART LABEL SETTINGS URL SCENARIO ARGS...: SETTINGS are keys as environment variables.
gateway() {
    local part=$1 label=$2 settings=$3 url=$4
    shift 4
    rm -rf "$OUT/data"
    "$RINGPOST" group create --config "$OUT/ringpost.toml" --id 1 \
        --members "$(seq -s, "$MEMBERS")" >"$OUT/ringpost.log" 2>&1 ||
        die "no group: $(cat "$OUT/ringpost.log")"
    # shellcheck disable=SC2086 # words on purpose
    serve "$ws_port" "$OUT/ringpost.log" \
        env $settings taskset -c "$SERVER_CORE" "$RINGPOST" serve --config "$OUT/ringpost.toml"
    run_load "$part" "$label" "$@" --protocol binary --url "$url" \
        --server-version "$ringpost_version"
}

# gateways, as gateway: on the ring, and then on the gateway's other engine.
gateways() {
    gateway "$@"
    wants epoll || return 0
    local part=$1 label=$2 settings=$3
    shift 3
    gateway "$part" "$label epoll" "$settings RINGPOST_NODE_IO=epoll" "$@"
}

pairs() { # DEPTH
    local shape=(pairs --pairs "$PAIRS" --depth "$1")
    rival "pairs-$1" mosquitto "${shape[@]}"
    gateways "pairs-$1" ringpost "" "$ws" "${shape[@]}"
    if wants wss; then gateways "pairs-$1" "ringpost wss" "" "$wss" "${shape[@]}"; fi
}

fanouts() {
    local shape=(fanout --group 1 --members "$MEMBERS" --depth 4)
    local received="RINGPOST_DELIVERY_ACK=received RINGPOST_PROTOCOL_BINARY_REQUIRE_PUSH_ACK=false"
    if wants fanout; then
        rival fanout mosquitto "${shape[@]}"
        gateways fanout ringpost "" "$ws" "${shape[@]}"
    fi
    if wants unacked; then
        rival unacked "mosquitto unacked" "${shape[@]}" --qos 0
        gateways unacked "ringpost unacked" "$received" "$ws" "${shape[@]}" --qos 0
    fi
}

idle() {
    local shape=(idle --connections "$CONNECTIONS" --base "$BASE")
    rival idle mosquitto "${shape[@]}"
    gateways idle ringpost "" "$ws" "${shape[@]}"
    if wants wss; then gateways idle "ringpost wss" "" "$wss" "${shape[@]}"; fi
}

# Half of what the server itself did with one in flight, earlier in this round; and half of what
# the rival did, for all: a rate that leaves the load tool time.
half() {
    local own same
    same=$(half_rate mosquitto)
    if [ -n "$same" ]; then
        rival half mosquitto pairs --pairs "$PAIRS" --rate "$same"
        gateways half-rivals ringpost "" "$ws" pairs --pairs "$PAIRS" --rate "$same"
    fi
    own=$(half_rate ringpost)
    [ -z "$own" ] || gateways half ringpost "" "$ws" pairs --pairs "$PAIRS" --rate "$own"
}

half_rate() { # LABEL
    awk -F'\t' -v label="$1" -v round="$round" '$1 == "pairs-1" && $2 == label && $3 == round &&
        $4 == "rate_per_s" { printf "%d", $5 / 2 }' "$known"
}

shards() {
    local shape=(pairs --pairs "$PAIRS" --depth 16 --shards 2) two=RINGPOST_NODE_SHARDS=2 placement
    for placement in same-shard cross-shard; do
        gateways $placement ringpost $two "$ws" "${shape[@]}" --placement $placement
    done
}

# Something else wants the server's core, too, and gets half of it: then the load tool can offer
# twice of what the server can do. Before and after the flood a quarter of it is offered.
overload() { # LABEL SETTINGS
    local peak steps
    taskset -c "$SERVER_CORE" sh -c 'while :; do :; done' &
    started[hog]=$!
    gateway overload-peak "$1" "$2" "$ws" pairs --pairs "$PAIRS" --depth 16
    peak=$(awk -F'\t' -v label="$1" -v round="$round" '$1 == "overload-peak" && $2 == label &&
        $3 == round && $4 == "acked_per_s" { printf "%d", $5 }' "$known")
    if [ -n "$peak" ]; then
        steps=5x$((peak / 4)),8x$((peak * 2)),5x$((peak / 4)),5x$((peak / 4))
        gateway overload "$1" "$2" "$ws" pairs --pairs "$PAIRS" --steps "$steps" --late-ms 200
    fi
    stop hog
}

one_round() {
    # half needs the throughput, wss and epoll something to compare with.
    if wants pairs || wants half || wants wss || wants epoll; then pairs 1; fi
    if wants pairs || wants wss || wants epoll; then pairs 16; fi
    fanouts
    if wants connect; then
        rival connect mosquitto connect
        gateways connect ringpost "" "$ws" connect
    fi
    if wants idle || wants wss; then idle; fi
    if wants open; then
        rival open mosquitto pairs --pairs "$PAIRS" --rate "$RATE"
        gateways open ringpost "" "$ws" pairs --pairs "$PAIRS" --rate "$RATE"
    fi
    if wants half; then half; fi
    if wants shards; then shards; fi
    if wants offline; then
        gateways offline ringpost "" "$ws" offline --pairs "$PAIRS" --depth 16 --warm-up 0
    fi
    if wants overload; then
        overload ringpost ""
        if wants epoll; then overload "ringpost epoll" RINGPOST_NODE_IO=epoll; fi
    fi
}

# A rate that the load tool itself may have held down is a lower bound: good enough, or unknown.
offline_row() {
    awk -F'\t' '
        $1 == "offline" && $2 == "ringpost" && $4 == "rate_per_s" { rate[$3] = $5 }
        $1 == "offline" && $2 == "ringpost" && $4 == "load_busy_percent" { busy[$3] = $5 }
        END { for (round in rate) if (rate[round] >= 50000 || busy[round] < 85) print rate[round] }
        ' "$known" | judge "stored for absent users, messages/s" at-least 50000
}

requirements() {
    local cpu=server_cpu_us user=server_cpu_user_us
    printf '\n%-58s %12s  %-9s %-12s  %s\n' "CPU per message or login; x: ringpost / mosquitto" \
        measured required "" "the rounds"
    ratio "1:1 acknowledged, D = 1, x" $cpu pairs-1 ringpost pairs-1 mosquitto 0.55
    quotients pairs-1 ringpost $user pairs-1 ringpost $cpu |
        judge "  its user time, share" at-most 0.25
    ratio "1:1 acknowledged, D = 16, x" $cpu pairs-16 ringpost pairs-16 mosquitto 0.09
    values pairs-16 ringpost $user | judge "  its user time, us" at-most 0.5
    ratio "fan-out 1 -> 1,000 acknowledged, depth 4, x" $cpu fanout ringpost fanout mosquitto 0.165
    ratio "login, open, x" $cpu connect ringpost connect mosquitto 1.06
    ratio "cross-shard / same-shard, D = 16" $cpu cross-shard ringpost same-shard ringpost 1.3
    ratio "wss / ws, D = 1" $cpu pairs-1 "ringpost wss" pairs-1 ringpost 1.4
    values idle "ringpost wss" rss_per_connection_bytes |
        judge "user memory per idle wss session, bytes" at-most 6000
    values idle ringpost rss_per_connection_bytes |
        judge "user memory per idle ws session, bytes" at-most 512
    offline_row
    quotients half ringpost latency_p90_us half mosquitto latency_p90_us "" "" |
        judge "open loop at half of its own D = 1 rate, p90, x" at-most 1.0
    quotients half-rivals ringpost latency_p90_us half mosquitto latency_p90_us "" "" |
        judge "  both at half of the rival's D = 1 rate, p90, x" at-most 1.0
    # What the load tool could not offer in the flood makes the figure worse, never better.
    quotients overload ringpost step2_acked_per_s overload-peak ringpost acked_per_s "no " "" |
        judge "acknowledged of twice the capacity offered / peak" at-least 0.8
    quotients overload ringpost step4_ack_p90_us overload ringpost step1_ack_p90_us step4_ step1_ |
        judge "  back within 5 s: p90 of acknowledgements after / before" at-most 2
}

check() {
    local part
    for part in $ONLY; do
        [[ " $PARTS " == *" $part "* ]] || die "ONLY: no part $part; there are $PARTS"
    done
    taskset -c "$SERVER_CORE,$LOAD_CORE" true || die "cores $SERVER_CORE and $LOAD_CORE are needed"
    # The rival needs a descriptor per connection; children of this script may open all they can.
    ulimit -n "$(ulimit -Hn)"
    [ "$(ulimit -Hn)" = unlimited ] || [ "$(ulimit -Hn)" -ge $((CONNECTIONS + 1000)) ] ||
        die "the hard limit of open files (ulimit -Hn) is $(ulimit -Hn): set CONNECTIONS to less"
    mkdir -p "$OUT"
    if ls "$OUT"/*.json >/dev/null 2>&1; then die "$OUT has reports already"; fi
    [ "$(stat -f -c %T "$OUT")" != tmpfs ] || say "!!! $OUT is memory: nothing there is durable"
    : >"$known"
}

main() {
    programs
    ringpost_version=$("$RINGPOST" --version)
    check
    find_mosquitto
    write_configs
    if wants epoll && ! has_epoll; then
        say "!!! this gateway has no key node.io: epoll is left out"
        ONLY=${ONLY//epoll/}
    fi
    local machine
    machine=$(describe_machine)
    for round in $(seq "$ROUNDS"); do one_round; done
    rm -rf "$OUT/data"

    echo "$machine"
    echo "$ringpost_version, $mosquitto_version"
    echo "$ROUNDS rounds of $DURATION s each"
    echo "reports: $OUT"
    # In the order of time: the rival is first in its shapes, so that the ratios are to it.
    # shellcheck disable=SC2011,SC2012 # names without line ends
    ls -tr "$OUT"/*.json | xargs -d '\n' "$PERF" table || true
    requirements
    if [ ${#failed[@]} -gt 0 ]; then
        printf 'FAILED: %s\n' "${failed[@]}"
        exit 1
    fi
}

main
