# Sourced by rivals.sh, protocols.sh and million.sh: the programs, processes that end with the
# script, figures of rounds, and what they come to.
# shellcheck shell=bash
export LC_ALL=C

TARGET=${CARGO_TARGET_DIR:-target}
# Process ids of what was started and not yet ended, by what it is.
declare -A started=()
# Of scripts that compare: the round and how many there are, the file of all figures, the runs that
# failed.
round=0 ROUNDS=${ROUNDS:-3} known=/dev/null failed=()

say() { printf '%s\n' "$*" >&2; }

die() {
    say "$*"
    exit 1
}

# Sets RINGPOST and PERF: those of this tree, newly built, unless the environment names others.
programs() {
    if [ -z "${RINGPOST:-}" ] || [ -z "${PERF:-}" ]; then
        command -v cargo >/dev/null || die "cargo is missing: get stable Rust at https://rustup.rs"
        cargo build --release -p ringpost -p perf || die "the programs do not build"
    fi
    RINGPOST=${RINGPOST:-$TARGET/release/ringpost}
    PERF=${PERF:-$TARGET/release/ringpost-perf}
    [ -x "$RINGPOST" ] || die "$RINGPOST is not there"
    [ -x "$PERF" ] || die "$PERF is not there"
}

is_open() { (exec 3<>"/dev/tcp/127.0.0.1/$1") 2>/dev/null; }

# serve PORT LOG COMMAND...: started, and listening on PORT. Its process is ${started[server]}.
serve() {
    local port=$1 log=$2
    shift 2
    # The kernel ends a ring, and a listener in it, a little after its process.
    for _ in $(seq 100); do
        is_open "$port" || break
        sleep 0.1
    done
    ! is_open "$port" || die "port $port is taken: choose others with PORT"
    "$@" >"$log" 2>&1 &
    started[server]=$!
    for _ in $(seq 300); do
        kill -0 "${started[server]}" 2>/dev/null || break
        if is_open "$port"; then return 0; fi
        sleep 0.1
    done
    cat "$log" >&2
    die "did not start: $*"
}

# Ends what was started under that name: politely, and after half a minute for certain.
stop() {
    local pid=${started[$1]:-}
    [ -n "$pid" ] || return 0
    unset "started[$1]"
    kill "$pid" 2>/dev/null || true
    for _ in $(seq 300); do
        kill -0 "$pid" 2>/dev/null || break
        sleep 0.1
    done
    kill -9 "$pid" 2>/dev/null && say "process $pid had to be killed"
    wait "$pid" 2>/dev/null || true
}

stop_all() {
    local name
    for name in "${!started[@]}"; do stop "$name"; done
}
trap stop_all EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

# The figures of reports, medians if there are several of a kind: one "name value" per line.
figures() {
    "$PERF" table "$@" | awk '/^  [a-z]/ && NF == 2' || true
}

# A / B, or nothing if one of them is not known.
quotient() {
    awk -v a="$1" -v b="$2" 'BEGIN { if (a != "" && b > 0) printf "%.3f", a / b }'
}

# Whether this part of a script is wanted, of those that ONLY names.
wants() { [[ " $ONLY " == *" $1 "* ]]; }

# run_load PART LABEL SCENARIO ARGS...: one run against the server that was just started, with
# nothing in its store, and its end.
run_load() {
    local part=$1 label=$2 scenario=$3
    local name="$part-${label// /-}-$round"
    shift 3
    say "== round $round: $part, $label"
    taskset -c "$LOAD_CORE" "$PERF" "$scenario" --label "$label" --server-pid "${started[server]}" \
        --fresh --duration "$DURATION" --json "$OUT/$name.json" "$@" >"$OUT/$name.txt" &
    started[load]=$!
    if wait "${started[load]}"; then
        figures "$OUT/$name.json" | while read -r figure value; do
            printf '%s\t%s\t%s\t%s\t%s\n' "$part" "$label" "$round" "$figure" "$value"
        done >>"$known"
    else
        cat "$OUT/$name.txt" >&2
        failed+=("$part, $label, round $round")
    fi
    unset 'started[load]'
    stop server
}

# PART LABEL FIGURE: of each good round, one per line.
values() {
    awk -F'\t' -v part="$1" -v label="$2" -v figure="$3" \
        '$1 == part && $2 == label && $4 == figure { print $5 }' "$known"
}

# PART LABEL FIGURE PART LABEL FIGURE [PREFIX PREFIX]: the first figure by the second one of the
# same round, one per line: what the machine does to all runs of a round is in both. Given the
# prefixes of their phases, only of rounds in which no load tool was the bottleneck in them.
quotients() {
    awk -F'\t' -v part_a="$1" -v label_a="$2" -v figure_a="$3" -v part_b="$4" -v label_b="$5" \
        -v figure_b="$6" -v busy_a="${7-no }load_busy_percent" -v busy_b="${8-no }load_busy_percent" '
        $1 == part_a && $2 == label_a && $4 == figure_a { a[$3] = $5 }
        $1 == part_b && $2 == label_b && $4 == figure_b { b[$3] = $5 }
        $1 == part_a && $2 == label_a && $4 == busy_a && $5 >= 85 { busy[$3] }
        $1 == part_b && $2 == label_b && $4 == busy_b && $5 >= 85 { busy[$3] }
        END {
            for (round in a) {
                if (round in busy) {
                    print part_a ", " label_a ", round " round ": the load tool was busy, " \
                        figure_a " does not count" >"/dev/stderr"
                    # No tick of CPU time is not no time.
                } else if (b[round] > 0 && (a[round] > 0 || figure_a !~ /_us$/)) {
                    print a[round] / b[round]
                }
            }
        }' "$known"
}

# The median of the lines, the lowest and the highest, and how many there are; nothing of none.
spread() {
    sort -g | awk '{ v[NR] = $1 }
        END {
            middle = NR % 2 ? v[(NR + 1) / 2] : (v[NR / 2] + v[NR / 2 + 1]) / 2
            if (NR) print middle, v[1], v[NR], NR }'
}

# NAME [at-most|at-least REQUIRED]: a line of the table, of the rounds' values from its input. A
# round that failed, or does not count, is missed in it.
judge() {
    local middle="" low high count="" detail="no good round"
    read -r middle low high count < <(spread) || true
    if [ -n "$count" ]; then
        detail=$(awk -v low="$low" -v high="$high" 'BEGIN { printf "%.3g to %.3g", low, high }')
        middle=$(awk -v middle="$middle" 'BEGIN {
            format = middle < 100 ? "%.3f" : "%.0f"
            printf format, middle }')
        if [ "$count" = "$ROUNDS" ]; then
            detail+=", $count rounds"
        else
            detail+=", ONLY $count OF $ROUNDS ROUNDS"
        fi
    fi
    row "$1" "$middle" "${2:-}" "${3:-}" "$detail"
}

# NAME FIGURE PART LABEL PART LABEL REQUIRED: the first one's figure against the second one's.
ratio() {
    quotients "$3" "$4" "$2" "$5" "$6" "$2" | judge "$1" at-most "$7"
}

# One line; before the first run, so that the load average is that of others.
describe_machine() {
    local model load
    model=$(awk -F': *' '/^model name/ { print $2; exit }' /proc/cpuinfo)
    load=$(cut -d' ' -f1 /proc/loadavg)
    awk -v load="$load" 'BEGIN { exit !(load >= 1) }' &&
        say "!!! THE MACHINE IS BUSY (load average $load): the figures will say little"
    echo "$(date -u +%F), Linux $(uname -r), $(nproc) x $model, load average before it $load"
}

# A line of the list of requirements, or of what stands beside them.
row() { # NAME MEASURED [at-most|at-least REQUIRED [DETAIL]]
    awk -v name="$1" -v measured="$2" -v sign="${3:-}" -v required="${4:-}" -v detail="${5:-}" '
        BEGIN {
            good = sign == "at-least" ? measured + 0 >= required : measured + 0 <= required
            verdict = sign == "" ? "" : measured == "" ? "not measured" : good ? "ok" : "missed"
            bound = sign == "" ? "" : (sign == "at-least" ? ">= " : "<= ") required
            line = sprintf("%-58s %12s  %-9s %-12s  %s", name, measured == "" ? "-" : measured,
                bound, verdict, detail)
            sub(/ +$/, "", line)
            print line
        }'
}
