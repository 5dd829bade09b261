#!/usr/bin/env bash
# A million logged-in sessions in one gateway process, the load on the same machine: everybody is
# there, answers pings and gets some messages; then all leave and come back. Says first which limit
# of this machine would stop it, and changes none. See perf/README.md.
#
#   perf/million.sh                         perf/scenarios/million.toml, about ten minutes
#   SCALE=50000 LOAD_SECONDS=20 perf/million.sh       a small try: fewer users, fewer shards
#   SCENARIO=perf/scenarios/two-million.toml perf/million.sh
#   PROCESSES=4 perf/million.sh             the load in several processes
#   CHECK=1 perf/million.sh                 only says what the limits are
#   FORCE=1 perf/million.sh                 although a limit says no: how far does it come?
#
# Exit 1 if the run failed, 2 if a limit says that it cannot be done. JSON and HTML stay in OUT.
set -euo pipefail
cd "$(dirname "$0")/.."
# shellcheck source=perf/common.sh
. perf/common.sh

SCENARIO=${SCENARIO:-perf/scenarios/million.toml}
PROCESSES=${PROCESSES:-1}
# Every login asks the one store thread whether messages are waiting. What comes faster than it
# answers is refused until later; at this rate new logins wait in their sockets instead.
LOGINS_PER_SECOND=${LOGINS_PER_SECOND:-15000}
PORT=${PORT:-19290}
OUT=${OUT:-$TARGET/million-$(date +%Y%m%d-%H%M%S)}

# An integer of the scenario file, without its underscores.
setting() {
    awk -v key="$1" '$1 == key && $2 == "=" { gsub("_", "", $3); print $3; exit }' "$SCENARIO"
}

users=${SCALE:-$(setting users)}
rounds=$(setting rounds)
load_seconds=${LOAD_SECONDS:-$(setting seconds)}
hard=$(ulimit -Hn)
if [ "$hard" = unlimited ]; then hard=1048576; fi
# A ring's table of connections cannot be larger than the open-file limit, and 20,000 keep the
# shards small. Users are spread by a hash and connections by the kernel: a tenth stays free.
slots=$((hard < 20000 ? hard : 20000))
shards=$(((users + slots * 9 / 10 - 1) / (slots * 9 / 10)))

stopper=
# limit NAME NEEDED AVAILABLE [WHY IT DOES NOT COUNT]
limit() {
    local verdict=ok
    if [ "$2" -gt "$3" ]; then
        verdict="STOPS IT at about $((users * $3 / $2)) sessions"
        if [ -n "${4:-}" ]; then
            verdict="$4"
        else
            stopper=${stopper:-$1}
        fi
    fi
    printf '  %-44s needs %13s, has %13s  %s\n' "$1" "$2" "$3" "$verdict"
}

# The memory limit of this process's control group, in KiB; nothing if there is none.
cgroup_kib() {
    local path file bytes
    path=$(awk -F: '$1 == 0 { print $3 }' /proc/self/cgroup)
    file=/sys/fs/cgroup$path/memory.max
    if [ ! -r "$file" ]; then
        path=$(awk -F: '$2 == "memory" { print $3 }' /proc/self/cgroup)
        file=/sys/fs/cgroup/memory$path/memory.limit_in_bytes
    fi
    bytes=$(cat "$file" 2>/dev/null || true)
    # Both forms of no limit: "max", and a number close to 2^63.
    if [[ "$bytes" =~ ^[0-9]{1,15}$ ]]; then echo $((bytes / 1024)); fi
}

check_limits() {
    local allocated most low high pages tracked exempt="" kib
    read -r allocated _ most </proc/sys/fs/file-nr
    read -r low high </proc/sys/net/ipv4/ip_local_port_range
    read -r _ _ pages </proc/sys/net/ipv4/tcp_mem
    # The kernel does not hold a process with CAP_SYS_ADMIN to fs.file-max.
    if (((0x$(awk '$1 == "CapEff:" { print $2 }' /proc/self/status) >> 21) & 1)); then
        exempt="over it, but not enforced: CAP_SYS_ADMIN"
    fi
    echo "$users sessions: $shards shards with tables of $slots, limits of this machine:"
    limit "shards (open files, ulimit -Hn: $(ulimit -Hn))" "$shards" 256
    limit "fs.file-max: files, both ends, still free" $((2 * users + 2000)) $((most - allocated)) \
        "$exempt"
    kib=$((users * KIB_PER_SESSION))
    limit "MemAvailable, KiB: both ends" "$kib" \
        "$(awk '/^MemAvailable/ { print $2 }' /proc/meminfo)"
    if [ -n "$(cgroup_kib)" ]; then
        limit "memory of the control group, KiB" "$kib" "$(cgroup_kib)"
    fi
    limit "ip_local_port_range x 249 source addresses" "$users" $(((high - low + 1) * 249))
    # A socket that waits holds no page: only those who are logging in or hear a message do.
    limit "tcp_mem, pages: what is under way" \
        $(($(awk '/^TCP:/ { print $NF }' /proc/net/sockstat) + 4 * $(setting concurrency))) "$pages"
    tracked=$(cat /proc/sys/net/netfilter/nf_conntrack_count 2>/dev/null || echo 0)
    if [ "$tracked" -gt 0 ]; then
        limit "nf_conntrack_max: connections are tracked" $((users + tracked)) \
            "$(cat /proc/sys/net/netfilter/nf_conntrack_max)"
    fi
    if [ -n "$stopper" ] && [ -z "${FORCE:-}" ]; then
        say "$stopper: too little. Raise it, or set SCALE to fewer users. FORCE=1 tries it anyway."
        exit 2
    fi
}

# Measured with 40,000, both ends together: 8.5 KiB of kernel memory, and what the processes use.
KIB_PER_SESSION=10

# One shard per table, pinned by the gateway itself, round-robin. The queue of logins has room for
# all that are begun.
write_config() {
    cat >"$OUT/ringpost.toml" <<END
[node]
shards = $shards
data_dir = "$(realpath "$OUT")/data"
[[listener]]
protocol = "binary"
transport = "ws"
bind = "127.0.0.1:$PORT"
path = "/ws"
[http]
bind = "127.0.0.1:$((PORT + 1))"
[auth]
mode = "open"
queue = 16384
[heartbeat]
interval_ms = 60000
[limits]
connections_per_shard = $slots
logins_per_second = $(((LOGINS_PER_SECOND + shards - 1) / shards))
END
}

# The scenario of one load process: its share of the users, of the messages, and of the logins at
# a time, which are fewer for a smaller gateway.
write_scenario() {
    local logins=$(($(setting concurrency) * users / $(setting users)))
    if [ $logins -lt 64 ]; then logins=64; fi
    sed -E -e "s/^users = .*/users = $((users / PROCESSES))/" \
        -e "s/^seconds = .*/seconds = $load_seconds/" \
        -e "s/^rate_per_s = .*/rate_per_s = $(($(setting rate_per_s) / PROCESSES))/" \
        -e "s/^concurrency = .*/concurrency = $((logins / PROCESSES))/" \
        "$SCENARIO" >"$OUT/scenario.toml"
}

# Starts all load processes and waits for them; the first one watches the server and is shown.
load() {
    local index pid args status=0 pids=()
    for index in $(seq 0 $((PROCESSES - 1))); do
        args=(--url "ws://127.0.0.1:$PORT/ws" --label ringpost --patience 60 --fresh)
        args+=(--server-version "$("$RINGPOST" --version)")
        args+=(--first-user $((1 + index * (users / PROCESSES))) --json "$OUT/load-$index.json")
        if [ "$index" = 0 ]; then args+=(--server-pid "${started[server]}"); fi
        if [ "$index" = 0 ]; then
            "$PERF" mixed "${args[@]}" "$OUT/scenario.toml" >"$OUT/load-$index.txt" &
        else
            "$PERF" mixed "${args[@]}" "$OUT/scenario.toml" >"$OUT/load-$index.txt" 2>&1 &
        fi
        pids+=($!)
        started[load $index]=$!
    done
    for pid in "${pids[@]}"; do wait "$pid" || status=1; done
    for index in $(seq 0 $((PROCESSES - 1))); do unset "started[load $index]"; done
    return $status
}

# Keeps what the gateway itself counted: why connections were closed, above all.
metrics() {
    (
        exec 3<>"/dev/tcp/127.0.0.1/$((PORT + 1))"
        printf 'GET /metrics HTTP/1.0\r\n\r\n' >&3
        timeout 10 cat <&3 >"$OUT/metrics.txt"
    ) 2>/dev/null || say "the gateway's metrics cannot be read"
}

# One report of all; its text goes to OUT/report.txt.
report() {
    local files
    files=("$OUT"/load-*.json)
    if [ ${#files[@]} = 1 ]; then
        cp "${files[0]}" "$OUT/report.json"
        cp "$OUT/load-0.txt" "$OUT/report.txt"
    else
        "$PERF" merge "$OUT/report.json" "${files[@]}" >"$OUT/report.txt" || true
    fi
    "$PERF" html "$OUT/report.json" -o "$OUT/report.html" >/dev/null || true
}

declare -A figure=()
# memory NAME FIGURE: what was used more than before the first login, in all and per session.
memory() {
    local mark
    printf '%-44s' "$1"
    for mark in full loaded gone full2 loaded2; do
        awk -v now="${figure[${mark}_$2]:-}" -v before="${figure[empty_$2]:-}" -v n="$users" \
            -v mark="$mark" 'BEGIN {
            if (now == "" || before == "") { printf " %18s", "-"; exit }
            text = sprintf("%.1f MiB", (now - before) / 1024)
            if (mark != "gone") text = text sprintf(" (%.0f B)", (now - before) * 1024 / n)
            printf " %18s", text }'
    done
    echo
}

summary() {
    local name value p99 again
    while read -r name value; do figure[$name]=$value; done < <(figures "$OUT/report.json")
    echo
    echo "$users sessions on $shards shards, load in $PROCESSES process(es): memory above the start"
    if [ "$PROCESSES" -gt 1 ]; then
        echo "(one of several load processes saw the memory, at moments of its own)"
    fi
    printf '%-44s %18s %18s %18s %18s %18s\n' "" "all there" "after the load" "all gone" \
        "all back" "and its load"
    memory "gateway's own (RSS)" rss_kib
    memory "kernel slab, both ends, whole machine" slab_kib
    memory "kernel socket buffers, both ends, likewise" socket_kib
    echo "gateway before the first login: ${figure[empty_rss_kib]:--} KiB"
    echo "all connected in ${figure[ramp_window_s]:--} s, again in" \
        "${figure[round2_ramp_window_s]:--} s"
    echo
    # One every 60 s of load, in each round.
    row "pings answered per session and round" "$(quotient \
        "${figure[pings_answered]:-}" $((users * rounds)))" at-least $((load_seconds / 60))
    p99=$(quotient "${figure[latency_p99_us]:-}" 1000)
    again=$(quotient "${figure[round2_latency_p99_us]:-}" 1000)
    row "p99 from sender to receiver, ms" "$p99" at-most 50
    row "the same after all came back" "$again" at-most 50
    # The gateway remembers the ids of those who sent something for ten minutes, also of those who
    # are away, so what counts is what it had when they left.
    row "gateway's memory when all are back / before they left" \
        "$(quotient "${figure[full2_rss_kib]:-}" "${figure[loaded_rss_kib]:-}")" at-most 1.05
    row "  the same / when all were there for the first time" \
        "$(quotient "${figure[full2_rss_kib]:-}" "${figure[full_rss_kib]:-}")"
    row "  after the second load / after the first" \
        "$(quotient "${figure[loaded2_rss_kib]:-}" "${figure[loaded_rss_kib]:-}")"
}

main() {
    local status=0
    check_limits
    if [ -n "${CHECK:-}" ]; then exit 0; fi
    programs
    mkdir -p "$OUT"
    if ls "$OUT"/*.json >/dev/null 2>&1; then die "$OUT has reports already"; fi
    describe_machine
    write_config
    write_scenario
    serve "$PORT" "$OUT/ringpost.log" "$RINGPOST" serve --config "$OUT/ringpost.toml"
    load || status=1
    metrics
    stop server
    rm -rf "$OUT/data"
    report
    cat "$OUT/report.txt"
    summary
    echo "reports: $OUT"
    exit $status
}

main
