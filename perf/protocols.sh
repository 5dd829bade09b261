#!/usr/bin/env bash
# Every protocol of the gateway under the same load: 500 pairs, 1 and 16 in flight, the gateway on
# one core, the load on another, a fresh gateway for every run, the protocols in turn within each
# round. Prints one table of medians, then the CPU time per message relative to the binary protocol.
# See perf/README.md.
#
#   perf/protocols.sh                            three rounds: about five minutes
#   ROUNDS=1 DURATION=2 perf/protocols.sh        a first look
#   ONLY="uring epoll" perf/protocols.sh         on both engines of the gateway: twice as long
#
# simple-im runs twice: with the pause between two packets that its original clients need, and
# without. Exit 1 if any run failed. A ratio that is missed is printed, and is not a failure.
set -euo pipefail
cd "$(dirname "$0")/.."
# shellcheck source=perf/common.sh
. perf/common.sh

ONLY=${ONLY:-uring}
DURATION=${DURATION:-5}
PAIRS=${PAIRS:-500}
SERVER_CORE=${SERVER_CORE:-0}
LOAD_CORE=${LOAD_CORE:-1}
PORT=${PORT:-19290}
OUT=${OUT:-$TARGET/protocols-$(date +%Y%m%d-%H%M%S)}

known=$OUT/figures.tsv

# One listener per protocol; the first one's port tells that the gateway is up.
listener() { # PROTOCOL TRANSPORT PORT
    printf '[[listener]]\nprotocol = "%s"\ntransport = "%s"\nbind = "127.0.0.1:%s"\n' "$@"
}

write_config() {
    {
        printf '[node]\nshards = 1\ndata_dir = "%s/data"\n' "$(realpath "$OUT")"
        listener binary ws "$PORT"
        printf 'path = "/ws"\n'
        listener binary tcp $((PORT + 1))
        listener simple-text tcp $((PORT + 2))
        listener simple-im tcp $((PORT + 3))
        listener im-demo tcp $((PORT + 4))
        printf '[http]\nbind = ""\n[auth]\nmode = "open"\n'
    } >"$OUT/ringpost.toml"
}

# pairs LABEL PROTOCOL URL DEPTH [SETTING...]: settings are keys as environment variables.
pairs() {
    local label=$1 protocol=$2 url=$3 depth=$4
    shift 4
    rm -rf "$OUT/data"
    serve "$PORT" "$OUT/ringpost.log" \
        env "$@" taskset -c "$SERVER_CORE" "$RINGPOST" serve --config "$OUT/ringpost.toml"
    run_load "pairs-$depth" "$label" pairs --pairs "$PAIRS" --depth "$depth" \
        --protocol "$protocol" --url "$url" --server-version "$ringpost_version"
}

# engines LABEL PROTOCOL URL DEPTH [SETTING...]: on every engine that is wanted.
engines() {
    local label=$1
    if wants uring; then pairs "$@"; fi
    shift
    if wants epoll; then pairs "$label epoll" "$@" RINGPOST_NODE_IO=epoll; fi
}

one_round() {
    local tcp=tcp://127.0.0.1 depth
    for depth in 1 16; do
        engines "binary tcp" binary "$tcp:$((PORT + 1))" $depth
        engines "binary ws" binary "ws://127.0.0.1:$PORT/ws" $depth
        engines simple-text simple-text "$tcp:$((PORT + 2))" $depth
        engines simple-im simple-im "$tcp:$((PORT + 3))" $depth
        engines "simple-im no gap" simple-im "$tcp:$((PORT + 3))" $depth \
            RINGPOST_PROTOCOL_SIMPLE_IM_GAP_MS=0
        engines im-demo im-demo "$tcp:$((PORT + 4))" $depth
    done
}

# LABEL LABEL DEPTH: how the CPU time of the one relates to that of the other, round by round.
cpu() {
    quotients "pairs-$3" "$1" server_cpu_us "pairs-$3" "$2" server_cpu_us
}

# LABEL REQUIRED: its CPU time per message against that of the binary protocol, and of the engines.
against_binary() {
    local label=$1 required=$2 depth
    for depth in 1 16; do
        if wants uring; then
            cpu "$label" "binary tcp" $depth |
                judge "$label / binary over tcp, D = $depth" at-most "$required"
            cpu "$label" "binary ws" $depth | judge "  the same / binary over ws"
        fi
        if wants epoll; then
            cpu "$label epoll" "binary tcp epoll" $depth |
                judge "  the same / binary over tcp, both on epoll" at-most "$required"
        fi
        if wants uring && wants epoll; then both_engines "$label" $depth; fi
    done
}

both_engines() { # LABEL DEPTH
    cpu "$1 epoll" "$1" "$2" | judge "  $1, D = $2: epoll / io_uring"
}

main() {
    local engine
    for engine in $ONLY; do
        [[ " uring epoll " == *" $engine "* ]] || die "ONLY: no engine $engine: uring, epoll"
    done
    programs
    ringpost_version=$("$RINGPOST" --version)
    taskset -c "$SERVER_CORE,$LOAD_CORE" true || die "cores $SERVER_CORE and $LOAD_CORE are needed"
    ulimit -n "$(ulimit -Hn)"
    mkdir -p "$OUT"
    if ls "$OUT"/*.json >/dev/null 2>&1; then die "$OUT has reports already"; fi
    : >"$known"
    write_config
    local machine
    machine=$(describe_machine)
    for round in $(seq "$ROUNDS"); do one_round; done
    rm -rf "$OUT/data"

    echo "$machine"
    echo "$ringpost_version"
    echo "$ROUNDS rounds of $DURATION s each"
    echo "reports: $OUT"
    # shellcheck disable=SC2011,SC2012 # names without line ends
    ls -tr "$OUT"/*.json | xargs -d '\n' "$PERF" table || true
    printf '\n%-58s %12s  %-9s %-12s  %s\n' "CPU time per message; x: protocol / binary" \
        measured required "" "the rounds"
    if wants uring && wants epoll; then
        both_engines "binary tcp" 1
        both_engines "binary tcp" 16
    fi
    against_binary simple-text 2
    against_binary simple-im 2
    against_binary "simple-im no gap" 2
    against_binary im-demo 1.3
    if [ ${#failed[@]} -gt 0 ]; then
        printf 'FAILED: %s\n' "${failed[@]}"
        exit 1
    fi
}

main
