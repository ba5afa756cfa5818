#!/usr/bin/env bash
# Whether a search that is killed and started again, as often as it takes, ends as if nothing had happened: the same
# result.json, byte for byte, and the same model/.
#
#     [CONFIG=FILE] scripts/kill-test.sh [N] [SEED] [ARGUMENT...]
#
# Runs the quickstart (or CONFIG) undisturbed once; where it measures speed, once more, and every run after it starts from
# the measurements of the first; then kills it (SIGKILL) at N random moments (default 20) drawn from SEED
# (default 1) over the time that took, in as many runs as that needs, and stops it with SIGINT at N / 4 + 1 moments more.
# ARGUMENTs go to `postnas search`, for example --set supernet.mode=sampled. State is saved often, so that kills find it
# being written. Exit status 0 when all runs agree.
set -euo pipefail
case ${1-} in -h | --help) sed -n '2,13s/^# \{0,1\}//p' "$0"; exit 0 ;; esac
cd "$(dirname "$0")/.."
n=${1:-20} seed=${2:-1}
[[ $n =~ ^[0-9]+$ && $seed =~ ^[0-9]+$ ]] || { echo "kill-test.sh: N and SEED are whole numbers" >&2; exit 2; }
shift $(($# < 2 ? $# : 2))
[ -x build/postnas ] || { echo "kill-test.sh: build first: scripts/quickstart.sh does" >&2; exit 2; }

top=$(mktemp -d)
trap 'rm -rf "$top"' EXIT
common=(--config "${CONFIG-configs/quickstart.yaml}" --set supernet.checkpoint_seconds=0.05 --set distill.checkpoint_seconds=0.05
    "$@" --quiet)
search() { build/postnas search "${common[@]}" --set output="$1" > "$top/out" 2> "$top/err"; }
fail() {
    echo "kill-test.sh: $1" >&2
    tail -n 3 "$top/err" >&2
    exit 1
}

search_whole() { search "$top/whole" || fail "the undisturbed run failed"; }
started=$(date +%s%N)
search_whole
if [ -e "$top/whole/state/latency.json" ]; then
    mv "$top/whole/state/latency.json" "$top/latency.json"
    rm -rf "$top/whole"
    common+=(--set latency.table="$top/latency.json")
    started=$(date +%s%N)
    search_whole
fi
whole=$((($(date +%s%N) - started) / 1000000)) # milliseconds
echo "undisturbed: $whole ms"

RANDOM=$seed
# Starts or continues the run $1 and sends signal $2 after a random time; its exit status, 137 when killed.
disturb() {
    local ms=$((whole * (RANDOM * 32768 + RANDOM) / 1073741824))
    delay=$(printf '%d.%03d' $((ms / 1000)) $((ms % 1000)))
    status=0
    timeout --preserve-status -s "$2" "$delay" build/postnas search "${common[@]}" --set output="$1" \
        > "$top/out" 2> "$top/err" || status=$?
    # `timeout` may be gone before what it killed: the run's lock goes with the process
    [ ! -e "$1/lock" ] || flock "$1/lock" true
}
# Where the run $1 was.
phase() {
    local at
    at=$(sed -n 's/.*"phase": "\(.*\)_seconds".*/\1/p' "$1/state/seconds.json" 2> /dev/null) || true
    [ -n "$at" ] || at=$([ -e "$1/timing.json" ] && echo "the end" || echo "the start")
    echo "$at"
}
check() {
    cmp "$top/whole/result.json" "$1/result.json" || fail "another result"
    diff -r "$top/whole/model" "$1/model" || fail "another model"
    ! grep -vn '^{.*}$' "$1/log.jsonl" || fail "the log has a torn record"
    [ -z "$(find "$1" -name '*.tmp' -o -name 'step-*.*' -o -name '*.postnas-*')" ] || fail "something half-written was left in the run"
    rm -rf "$1"
}

declare -A hit=()
left=$n
for ((round = 1; left > 0; round++)); do
    run=$top/run kills=0
    while [ "$left" -gt 0 ] && [ $kills -lt 3 ]; do # no more in one run, so that kills fall on all phases
        disturb "$run" KILL 2> /dev/null # where the shell says "Killed"
        [ $status -ne 0 ] || break
        [ $status -eq 137 ] || fail "round $round: exit status $status after $kills kills"
        at=$(phase "$run")
        hit[$at]=$((${hit[$at]-0} + 1)) kills=$((kills + 1)) left=$((left - 1))
    done
    search "$run" || fail "round $round: does not go on after $kills kills"
    check "$run"
    echo "round $round: $kills kills, the same result"
done
for at in "${!hit[@]}"; do echo "killed in $at: ${hit[$at]}"; done

stops=$((n / 4 + 1)) stopped=0
for ((i = 1; i <= stops; i++)); do
    run=$top/run
    disturb "$run" INT
    # 0: over before it looked; 130: before the program could ask for signals, when nothing was begun
    case $status in
    75) stopped=$((stopped + 1)) ;;
    0) ;;
    130) [ ! -e "$run" ] || fail "SIGINT ended a run that was begun" ;;
    *) fail "exit status $status after SIGINT" ;;
    esac
    search "$run" || fail "does not go on after SIGINT"
    check "$run"
done
echo "SIGINT: $stops runs, $stopped of them stopped with exit status 75 and went on, the same result"
