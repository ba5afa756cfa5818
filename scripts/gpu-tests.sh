#!/usr/bin/env bash
# Builds and runs the tests that need a GPU and writes tests/gpu/RECORD.md: date, GPU, commit, what passed.
#
#     scripts/gpu-tests.sh                     builds (preset cuda) and runs here
#     scripts/gpu-tests.sh --sanitize          then compute-sanitizer's four tools on `postnas check ops --each` and AdamW
#     scripts/gpu-tests.sh --slow              with the large cases: two minutes more on 16 cores
#     scripts/gpu-tests.sh --record FILE       another place for the record
#     FOLDER/gpu-tests.sh                      in a bundle (scripts/bundle.sh --tests): runs what is there, record beside it
#
# Exit status 0: all passed; 77: no GPU that can be used, nothing recorded; else something failed, and the record says what.
set -uo pipefail
export OMP_WAIT_POLICY=passive # threads that spin would take other processes' cores

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

# Everything below runs in a pool of processes. They take turns on the GPU, and most of them wait for the references,
# which are computed on the CPU.
start() { # start COMMAND...: in the background, when one of $workers is free
    while [ "$(jobs -rp | wc -l)" -ge "$workers" ]; do wait -n; done
    "$@" &
}
workers=$(nproc)
export OMP_NUM_THREADS=2

# The tests, the first of which says whether there is a GPU.
run_test() {
    OMP_NUM_THREADS=4 "$programs/test_gpu_$1" > "$work/$1.log" 2>&1
    echo $? > "$work/$1.code"
}
run_test device
if [ "$(cat "$work/device.code")" = 77 ]; then
    cat "$work/device.log"
    echo "gpu-tests.sh: nothing was run" >&2
    exit 77
fi
tests=$(cd "$programs" && echo test_gpu_*)
tests=${tests//test_gpu_/}
for name in $tests; do [ "$name" = device ] || start run_test "$name"; done

# Every case of every op in both types, for the tables of errors. The ops that take longest have a process of their own
# and begin; the others share a few.
long="gated_linear dplr gated_delta attention linear_kl linear_kl_topk linear_cross_entropy dynamic_conv"
ops=$("$programs/postnas" list ops | awk '/\// { print $1 }')
short=$(for op in $ops; do case " $long " in *" $op "*) ;; *) echo "$op" ;; esac; done)
readarray -t groups < <(printf '%s\n' $long && xargs -n 7 <<< "$short")
check() { # check NAME DTYPE ARGUMENTS...: postnas check, its output in check.DTYPE.NAME
    "$programs/postnas" check "${@:3}" --quiet --backend cuda --dtype "$2" > "$work/check.$2.$1" 2>&1 ||
        echo "$1 $2" >> "$work/failed"
}
for group in "${groups[@]}"; do
    for dtype in bf16 f32; do start check "${group// /+}" $dtype ops $group $slow; done
done
for dtype in f32 bf16; do start check vectors $dtype vectors "$golden/$([ $dtype = bf16 ] && echo bf16)"; done
wait

rows=""
for name in $tests; do
    cat "$work/$name.log"
    case $(cat "$work/$name.code") in 0 | 77) ;; *) failed=1 ;; esac # 77: something that it needs is not here
    rows+="| tests/gpu/$name | $(grep -E '^[0-9]+%: Checks' "$work/$name.log" ||
        echo "ended with $(cat "$work/$name.code")") |"$'\n'
done
rows_of() { # rows_of DTYPE: what the ops printed, in any order
    for log in "$work/check.$1".*; do [ "$log" = "$work/check.$1.vectors" ] || cat "$log"; done
}
count() { # count DTYPE: rows of the ops that passed and failed
    rows_of "$1" | awk '/^ok  /{p++} /^FAIL/{f++} END{printf "%d passed, %d failed", p, f}'
}
table() { # table DTYPE: a row per op, whose name stands alone before its rows
    rows_of "$1" | awk -v ops="$ops" '
        NF == 1 { op = $1 }
        /^(ok  |FAIL)  / {
            cases[op]++; if ($1 == "FAIL") bad[op]++
            for (i = 1; i <= NF; i++) if ($i ~ /^[0-9.e+-]+\/[0-9.e+-]+!?$/) {
                split($i, e, "/"); kind = $(i - 1) ~ /^out/ ? "out" : "din"
                if (e[1] + 0 > worst[op, kind] + 0) worst[op, kind] = e[1]
            }
        }
        END {
            n = split(ops, name, "\n")
            for (i = 1; i <= n; i++) { op = name[i]
                printf "| %s | %d | %d | %s | %s |\n", op, cases[op], bad[op], worst[op, "out"] + 0, worst[op, "din"] + 0 }
        }'
}
for dtype in f32 bf16; do
    echo "postnas check ops --dtype $dtype: $(count $dtype)"
    grep -h -E "^FAIL|error:" "$work/check.$dtype".*
done
[ ! -e "$work/failed" ] || failed=1

# These tools make everything a hundred times slower: a small case for each of an implementation's kernels. Blocks of
# memory are CUDA's own then (PN_CUDA_ARENA), so that a tool sees who reads or writes past the end of one. The limit
# is for the program itself: a tool that is ended leaves it running. Initcheck does not see what cuBLASLt and cuDNN write
# with the copy engine: the program fills that first (PN_CUDA_FILL), and their own kernels are not looked into.
limit=240 # seconds for a process
sanitizer() { # sanitizer TOOL LOG COMMAND...: its output in LOG, its exit status in LOG.code
    local not_ours=() fill=0
    case $1 in
    racecheck | synccheck) # they report races, and more barriers than they can follow, inside cuDNN's own kernels
        not_ours=(--kernel-name-exclude kns=cudnn) ;;
    initcheck)
        not_ours=(--kernel-name-exclude "regex=.*(cudnn|cublas|cutlass|nvjet|xmma|gemm|gemv|splitK).*") fill=1 ;;
    esac
    PN_CUDA_FILL=$fill compute-sanitizer --tool "$1" --target-processes all --error-exitcode 9 "${not_ours[@]}" \
        timeout -k 5 $limit "${@:3}" > "$2" 2>&1
    echo $? > "$2.code"
}
errors_in() { # errors_in LOG: as the tool counted them
    sed -n 's/.*SUMMARY: \([0-9]*\).*/\1/p' "$1" | tail -n 1
}
# A test in one process: a tool follows one that has already opened the GPU badly into those that it forks.
sanitize_test() { # sanitize_test TOOL NAME
    CK_FORK=no sanitizer "$1" "$work/$1.test.$2" "$programs/test_gpu_$2"
}
sanitized_test_row() { # sanitized_test_row TOOL NAME: checks, errors, how it ended
    local log="$work/$1.test.$2" code errors=0 end
    code=$(cat "$log.code")
    case $code in
    0) end="to the end" ;;
    9) errors=$(errors_in "$log") end="to the end" ;;
    124 | 137) end="not within $limit s" ;;
    *) end="with exit status $code" ;;
    esac
    if [ "$code" != 0 ]; then
        failed=1
        tail -n 40 "$log" >&2
    fi
    sanitized_tests+="| $1 | tests/gpu/$2 | $(grep -o -E '^[0-9]+%: Checks.*' "$log") | ${errors:-unknown} | $end |"$'\n'
}
sanitize() { # sanitize TOOL DTYPE OPS...: in TOOL.DTYPE.OPS
    local log="$work/$1.$2.${*:3}"
    sanitizer "$1" "${log// /+}" \
        "$programs/postnas" check ops --each "${@:3}" --quiet --backend cuda --dtype "$2"
}
sanitized_row() { # sanitized_row TOOL: cases in f32, in bf16, errors, what did not end
    local dtype log cases="" errors=0 late="" code found
    for dtype in f32 bf16; do
        cases+=" $(cat "$work/$1.$dtype".* | grep -c -E '^(ok  |FAIL)') |"
        for log in "$work/$1.$dtype".*.code; do
            code=$(cat "$log") log=${log%.code}
            [ "$code" = 0 ] && continue
            failed=1
            tail -n 40 "$log" >&2
            case $code in
            9) # also where the program failed, and the tool found nothing
                found=$(errors_in "$log") errors=$((errors + ${found:-0}))
                [ "${found:-0}" != 0 ] || late+=", $(grep -x -E '[a-z0-9_]+' "$log" | tail -n 1) in $dtype" ;;
            124 | 137) late+=", $(grep -x -E '[a-z0-9_]+' "$log" | tail -n 1) in $dtype" ;;
            *) late+=", ${log##*."$dtype".} in $dtype (exit status $code)" ;;
            esac
        done
    done
    late=${late:-, none}
    sanitized+="| $1 |$cases $errors | ${late#, } |"$'\n'
}
sanitized="" sanitized_tests=""
sanitized_names="optim" # kernels that belong to no op
if [ $sanitize = 1 ] && ! command -v compute-sanitizer > /dev/null; then
    echo "gpu-tests.sh: compute-sanitizer is not installed" >&2
    sanitized="| all | 0 | 0 | | compute-sanitizer is not installed |"$'\n'
    failed=1
elif [ $sanitize = 1 ]; then
    tools="racecheck initcheck memcheck synccheck" # the slowest first
    export OMP_NUM_THREADS=1 PN_CUDA_ARENA=0
    workers=12
    for tool in $tools; do
        for name in $sanitized_names; do start sanitize_test $tool "$name"; done
    done
    for group in "${groups[@]}"; do
        for tool in $tools; do
            for dtype in bf16 f32; do start sanitize $tool $dtype $group; done
        done
    done
    wait
    for tool in $tools; do
        sanitized_row $tool
        for name in $sanitized_names; do sanitized_test_row $tool "$name"; done
    done
fi

{
    echo "# GPU tests: the last run"
    echo
    echo "Written by \`scripts/gpu-tests.sh\`; do not edit."
    echo
    echo "- date: $(date -u +%Y-%m-%d)"
    echo "- GPU: $(sed -n 's/^on //p' "$work/check.f32.attention" | head -n 1)"
    echo "- commit: $commit"
    echo "- result: $([ $failed = 0 ] && echo passed || echo FAILED)"
    echo
    echo "| test | result |"
    echo "| --- | --- |"
    printf '%s' "$rows"
    for dtype in f32 bf16; do
        echo "| postnas check ops --backend cuda --dtype $dtype${slow:+ $slow} | $(count $dtype) |"
        echo "| postnas check vectors --backend cuda --dtype $dtype | $(tail -n 1 "$work/check.$dtype.vectors") |"
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
        echo "compute-sanitizer; cuDNN's own kernels are left out of racecheck and synccheck, and those of all libraries of initcheck,"
        echo "for which what they are to write is filled first (\`PN_CUDA_FILL=1\`)."
        echo
        echo "| compute-sanitizer, \`postnas check ops --each\` | cases in f32 | in bf16 | errors | did not end |"
        echo "| --- | --- | --- | --- | --- |"
        printf '%s' "$sanitized"
        if [ -n "$sanitized_tests" ]; then
            echo
            echo "| compute-sanitizer | test | result | errors | ran |"
            echo "| --- | --- | --- | --- | --- |"
            printf '%s' "$sanitized_tests"
        fi
    fi
} > "$record"
echo "gpu-tests.sh: $([ $failed = 0 ] && echo passed || echo FAILED), record in $record"
exit $failed
