#!/usr/bin/env bash
# The floor: the same relay on every engine in turn, each on core 0, the same load on core 1.
# Prints medians and their ratios to the gateway's engine, and keeps the reports. See README.md.
#
#   benches/runtimes/run.sh          everything
#   ROUNDS=1 DURATION=3 CONNECTIONS=6000 BASE=3000 benches/runtimes/run.sh
#   benches/runtimes/run.sh check    no load: that each relay relays, and keeps its bounds
#
# An engine that does not run stands below the table with its reason. Exit 1 if anything failed.
set -euo pipefail
cd "$(dirname "$0")"

# The first is what the ratios are to.
ENGINES=${ENGINES:-"uring epoll-io monoio glommio epoll"}
ROUNDS=${ROUNDS:-3}
DURATION=${DURATION:-10}
PAIRS=${PAIRS:-500}
DEPTHS=${DEPTHS:-"1 16"}
CONNECTIONS=${CONNECTIONS:-15000}
BASE=${BASE:-3000}
PORT=${PORT:-18700}
RELAYS=${RELAYS:-${CARGO_TARGET_DIR:-target}/release}
built=${CARGO_TARGET_DIR:-../../target}/release/ringpost-perf
OUT=${OUT:-$(mktemp -d)}
mkdir -p "$OUT"
if ls "$OUT"/*.json >/dev/null 2>&1; then
    echo "$OUT has reports already" >&2
    exit 1
fi

server=
stop_server() {
    [ -n "$server" ] || return 0
    kill "$server" 2>/dev/null || true
    wait "$server" 2>/dev/null || true
    server=
}
trap stop_server EXIT

say() { echo "$@" >&2; }

is_open() { (exec 3<>"/dev/tcp/127.0.0.1/$PORT") 2>/dev/null; }

# start ENGINE: on core 0, until it says that it listens. The pid is in $server.
start() {
    local said=$OUT/relay-$1.log
    : >"$said"
    # The kernel ends a ring, and the listener in it, a little after its process.
    for _ in $(seq 100); do
        is_open || break
        sleep 0.1
    done
    taskset -c 0 "$RELAYS/relay-$1" "127.0.0.1:$PORT" >"$said" 2>&1 &
    server=$!
    for _ in $(seq 100); do
        if grep -q '^listening on' "$said"; then return 0; fi
        kill -0 "$server" 2>/dev/null || break
        sleep 0.1
    done
    stop_server
    return 1
}

failures=()
# one ENGINE NAME SCENARIO ARGS...: a fresh relay, one run, its report in $OUT/NAME.json.
one() {
    local engine=$1 name=$2 scenario=$3
    shift 3
    say "== $name $engine"
    if ! start "$engine"; then
        failures+=("$engine did not start: $(tail -n 3 "$OUT/relay-$engine.log" | tr '\n' ' ')")
        return 0
    fi
    taskset -c 1 "$PERF" "$scenario" --protocol relay --url "tcp://127.0.0.1:$PORT" \
        --label "$engine" --server-pid "$server" --duration "$DURATION" \
        --json "$OUT/$name.json" "$@" >&2 || failures+=("$engine, $name: the run failed")
    stop_server
}

# The engines of a round, each round beginning with another one, as "place:engine" where the place
# is that of the table.
order() {
    local all=() place=0 engine
    for engine in $ENGINES; do
        all+=("$place:$engine")
        place=$((place + 1))
    done
    local first=$((($1 - 1) % ${#all[@]}))
    echo "${all[@]:first}" "${all[@]:0:first}"
}

# What an acknowledged message costs, halved: medians of all rounds.
per_relayed() {
    local depth entry
    echo
    printf '%-34s' "CPU per relayed message, us"
    for entry in $(order 1); do printf ' %10s' "${entry#*:}"; done
    for depth in $DEPTHS; do
        printf '\n%-34s' "$PAIRS pairs, $depth in flight"
        for entry in $(order 1); do
            "$PERF" table "$OUT/pairs-$depth-"*"-${entry%%:*}.json" |
                awk '$1 == "server_cpu_us" { printf " %10.2f", $2 / 2 }'
        done
    done
    echo
}

measure() {
    ulimit -n "$(ulimit -Hn)"
    cargo build --release --locked
    if [ -z "${PERF:-}" ]; then
        cargo build --release --manifest-path ../../Cargo.toml -p perf
        PERF=$built
    fi
    local round depth entry
    for round in $(seq "$ROUNDS"); do
        for depth in $DEPTHS; do
            for entry in $(order "$round"); do
                one "${entry#*:}" "pairs-$depth-$round-${entry%%:*}" \
                    pairs --pairs "$PAIRS" --depth "$depth"
            done
        done
    done
    for entry in $(order 1); do
        one "${entry#*:}" "idle-${entry%%:*}" idle --connections "$CONNECTIONS" --base "$BASE"
    done

    echo "$(date -u +%F) $(uname -r) $(nproc) cores," \
        "$(grep -m1 "model name" /proc/cpuinfo | cut -d: -f2)"
    echo "reports: $OUT"
    echo "pairs, server_*: per acknowledged message, which is two relayed ones: it and its" \
        "acknowledgement"
    # Without the figures that say nothing about an engine.
    "$PERF" table "$OUT"/*.json | grep -vE '^ +(ack|login|pings|window)_|_(p90|max)_us' ||
        failures+=("the table is not complete")
    per_relayed
    local failure
    for failure in "${failures[@]}"; do echo "FAILED: $failure"; done
    [ ${#failures[@]} -eq 0 ]
}

case ${1:-measure} in
    measure) measure ;;
    check) cargo test --release --locked ;;
    *)
        say "run.sh [check]"
        exit 2
        ;;
esac
