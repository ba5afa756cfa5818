#!/usr/bin/env bash
# Builds and runs the tests that need a GPU and writes tests/gpu/RECORD.md: date, GPU, commit, what passed.
#
#     scripts/gpu-tests.sh                     builds (preset cuda) and runs here
#     scripts/gpu-tests.sh --sanitize          then compute-sanitizer's four tools on the ops' small cases
#     scripts/gpu-tests.sh --slow              with the large cases: half an hour, most of it the references on the CPU
#     scripts/gpu-tests.sh --record FILE       another place for the record
#     FOLDER/gpu-tests.sh                      in a bundle (scripts/bundle.sh --tests): runs what is there, record beside it
#
# Exit status 0: all passed; 77: no GPU that can be used, nothing recorded; else something failed, and the record says what.
set -uo pipefail
export OMP_WAIT_POLICY=passive # several programs at a time: threads that spin would take each other's cores

here=$(cd "$(dirname "$0")" && pwd)
sanitize=0 slow="" record=""
while [ $# -gt 0 ]; do
    case $1 in
    --sanitize) sanitize=1 ;;
    --slow) slow=--slow ;;
    --record)
        [ $# -gt 1 ] || { echo "gpu-tests.sh: --record needs a file" >&2; exit 2; }
        record=$2
        shift
        ;;
    -h | --help) sed -n '2,10s/^# \{0,1\}//p' "$0"; exit 0 ;;
    *) echo "gpu-tests.sh: unknown option $1; see gpu-tests.sh --help" >&2; exit 2 ;;
    esac
    shift
done

if [ -f "$here/COMMIT" ]; then
    programs=$here
    record=${record:-$here/RECORD.md}
    commit=$(paste -sd ' ' "$here/COMMIT")
    golden=$here/golden
    export POSTNAS_SOURCE=$here POSTNAS_PROGRAM=$here/postnas
else
    cd "$here/.." || exit 1
    programs=$PWD/build-cuda
    golden=$PWD/tests/data/golden
    record=${record:-tests/gpu/RECORD.md}
    scripts/setup.sh || exit 1
    [ -f build-cuda/build.ninja ] || cmake --preset cuda || exit 1
    targets=(postnas)
    for test in tests/gpu/*.c; do targets+=("test_gpu_$(basename "$test" .c)"); done
    cmake --build --preset cuda --target "${targets[@]}" || exit 1
    commit=$(git rev-parse HEAD)
    [ -z "$(git status --porcelain --untracked-files=no)" ] || commit+=" with changes that are not committed"
fi

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
failed=0

# The suite.
rows=""
for test in "$programs"/test_gpu_*; do
    name=${test##*/test_gpu_}
    "$test" > "$work/$name.log" 2>&1
    code=$?
    cat "$work/$name.log"
    if [ $code = 77 ]; then
        echo "gpu-tests.sh: nothing was run" >&2
        exit 77
    fi
    [ $code = 0 ] || failed=1
    rows+="| tests/gpu/$name | $(grep -E '^[0-9]+%: Checks' "$work/$name.log" || echo "ended with $code") |"$'\n'
done

# Every case of every op in both types, for the tables of errors: the references are computed on the CPU, ops in parallel.
jobs=$(nproc)
export OMP_NUM_THREADS=2 # programs take the cores
check() { # check NAME DTYPE ARGUMENTS...: postnas check, its output in NAME.DTYPE.log
    local log=$work/$1.$2.log
    "$programs/postnas" check "${@:3}" --backend cuda --dtype "$2" > "$log" 2>&1 || echo "$1 $2" >> "$work/failed"
}
ops=$("$programs/postnas" list ops | awk '/\// { print $1 }')
for dtype in f32 bf16; do
    for op in $ops; do
        while [ "$(jobs -rp | wc -l)" -ge "$jobs" ]; do wait -n; done
        check "$op" $dtype ops "$op" $slow &
    done
    check vectors $dtype vectors "$golden/$([ $dtype = bf16 ] && echo bf16)" &
done
wait

count() { # count DTYPE: rows of the ops that passed and failed
    for op in $ops; do cat "$work/$op.$1.log"; done |
        awk '/^ok  /{p++} /^FAIL/{f++} END{printf "%d passed, %d failed", p, f}'
}
table() { # table DTYPE: a row per op
    for op in $ops; do
        awk -v op="$op" '
            /^(ok  |FAIL)  / {
                cases++; if ($1 == "FAIL") bad++
                for (i = 1; i <= NF; i++) if ($i ~ /^[0-9.e+-]+\/[0-9.e+-]+!?$/) {
                    split($i, e, "/"); kind = $(i - 1) ~ /^out/ ? "out" : "din"
                    if (e[1] + 0 > worst[kind] + 0) worst[kind] = e[1]
                }
            }
            END { printf "| %s | %d | %d | %s | %s |\n", op, cases, bad + 0, worst["out"] + 0, worst["din"] + 0 }
        ' "$work/$op.$1.log"
    done
}
for dtype in f32 bf16; do
    echo "postnas check ops --dtype $dtype: $(count $dtype)"
    grep -h -E "^FAIL|error:" "$work"/*.$dtype.log
done
[ ! -e "$work/failed" ] || failed=1

# Small cases only: these tools make everything fifty times slower.
sanitize() { # sanitize TOOL DTYPE
    compute-sanitizer --tool "$1" --target-processes all --error-exitcode 9 \
        "$programs/postnas" check ops --small --backend cuda --dtype "$2" > "$work/$1.$2.log" 2>&1
    echo $? > "$work/$1.$2.code"
}
sanitized=""
if [ $sanitize = 1 ] && ! command -v compute-sanitizer > /dev/null; then
    sanitized="| all | compute-sanitizer is not installed | |"$'\n'
elif [ $sanitize = 1 ]; then
    tools="memcheck racecheck initcheck synccheck"
    for tool in $tools; do
        for dtype in f32 bf16; do sanitize $tool $dtype & done
    done
    wait
    for tool in $tools; do
        sanitized+="| $tool |"
        for dtype in f32 bf16; do
            summary=$(grep -E 'SUMMARY' "$work/$tool.$dtype.log" | tail -n 1 | sed 's/^=* *//')
            sanitized+=" ${summary:-no summary: see its output} |"
            [ "$(cat "$work/$tool.$dtype.code")" = 0 ] || { failed=1; tail -n 40 "$work/$tool.$dtype.log"; }
        done
        sanitized+=$'\n'
    done
fi

{
    echo "# GPU tests: the last run"
    echo
    echo "Written by \`scripts/gpu-tests.sh\`; do not edit."
    echo
    echo "- date: $(date -u +%Y-%m-%d)"
    echo "- GPU: $(head -n 1 "$work/add.f32.log" | sed 's/^on //')"
    echo "- commit: $commit"
    echo "- result: $([ $failed = 0 ] && echo passed || echo FAILED)"
    echo
    echo "| test | result |"
    echo "| --- | --- |"
    printf '%s' "$rows"
    for dtype in f32 bf16; do
        echo "| postnas check ops --backend cuda --dtype $dtype${slow:+ $slow} | $(count $dtype) |"
        echo "| postnas check vectors --backend cuda --dtype $dtype | $(tail -n 1 "$work/vectors.$dtype.log") |"
    done
    for dtype in f32 bf16; do
        echo
        echo "Largest error of any case in $dtype against the double-precision reference, rms(x - ref) / rms(ref):"
        echo
        echo "| op | cases | failed | outputs | gradients |"
        echo "| --- | --- | --- | --- | --- |"
        table $dtype
    done
    if [ -n "$sanitized" ]; then
        echo
        echo "| compute-sanitizer, \`postnas check ops --small\` | f32 | bf16 |"
        echo "| --- | --- | --- |"
        printf '%s' "$sanitized"
    fi
} > "$record"
echo "gpu-tests.sh: $([ $failed = 0 ] && echo passed || echo FAILED), record in $record"
exit $failed
