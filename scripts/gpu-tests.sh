#!/usr/bin/env bash
# Builds and runs the tests that need a GPU and writes tests/gpu/RECORD.md: date, GPU, commit, what passed.
#
#     scripts/gpu-tests.sh                     builds (preset cuda) and runs here
#     scripts/gpu-tests.sh --sanitize          then compute-sanitizer's four tools on the ops' quick cases
#     scripts/gpu-tests.sh --record FILE       another place for the record
#     FOLDER/gpu-tests.sh                      in a bundle (scripts/bundle.sh --tests): runs what is there, record beside it
#
# Exit status 0: all passed; 77: no GPU that can be used, nothing recorded; else something failed, and the record says what.
set -uo pipefail

here=$(cd "$(dirname "$0")" && pwd)
sanitize=0 record=""
while [ $# -gt 0 ]; do
    case $1 in
    --sanitize) sanitize=1 ;;
    --record)
        [ $# -gt 1 ] || { echo "gpu-tests.sh: --record needs a file" >&2; exit 2; }
        record=$2
        shift
        ;;
    -h | --help) sed -n '2,9s/^# \{0,1\}//p' "$0"; exit 0 ;;
    *) echo "gpu-tests.sh: unknown option $1; see gpu-tests.sh --help" >&2; exit 2 ;;
    esac
    shift
done

if [ -f "$here/COMMIT" ]; then
    programs=$here
    record=${record:-$here/RECORD.md}
    commit=$(paste -sd ' ' "$here/COMMIT")
else
    cd "$here/.." || exit 1
    programs=$PWD/build-cuda
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

# Every case of every op, for the table of errors.
"$programs/postnas" check ops --backend cuda --slow > "$work/check.log" 2>&1 || failed=1
tail -n 1 "$work/check.log"
table=$(awk '
    /^[a-z0-9_]+$/ { op = $1 }
    /^(ok  |FAIL)  / {
        cases[op]++; if ($1 == "FAIL") bad[op]++
        for (i = 1; i <= NF; i++) if ($i ~ /^[0-9.e+-]+\/[0-9.e+-]+!?$/) {
            split($i, e, "/"); sub("!", "", e[2]); kind = $(i - 1) ~ /^din/ ? "din" : "out"
            if (e[1] + 0 > worst[op, kind] + 0) worst[op, kind] = e[1]
        }
    }
    END { for (op in cases) printf "| %s | %d | %d | %s | %s |\n", op, cases[op], bad[op] + 0, worst[op, "out"] + 0, worst[op, "din"] + 0 }
' "$work/check.log" | sort)

sanitized=""
if [ $sanitize = 1 ]; then
    for tool in memcheck racecheck initcheck synccheck; do
        if ! command -v compute-sanitizer > /dev/null; then
            sanitized+="| $tool | compute-sanitizer is not installed |"$'\n'
            continue
        fi
        compute-sanitizer --tool $tool --target-processes all --error-exitcode 9 \
            "$programs/postnas" check ops --backend cuda > "$work/$tool.log" 2>&1 || failed=1
        summary=$(grep -E 'SUMMARY' "$work/$tool.log" | tail -n 1 | sed 's/^=* *//')
        sanitized+="| $tool | ${summary:-no summary: see its output} |"$'\n'
        [ -n "$summary" ] && [[ $summary == *" 0 "* ]] || tail -n 40 "$work/$tool.log"
    done
fi

{
    echo "# GPU tests: the last run"
    echo
    echo "Written by \`scripts/gpu-tests.sh\`; do not edit."
    echo
    echo "- date: $(date -u +%Y-%m-%d)"
    echo "- GPU: $(head -n 1 "$work/check.log" | sed 's/^on //')"
    echo "- commit: $commit"
    echo "- result: $([ $failed = 0 ] && echo passed || echo FAILED)"
    echo
    echo "| test | result |"
    echo "| --- | --- |"
    printf '%s' "$rows"
    echo "| postnas check ops --backend cuda --slow | $(tail -n 1 "$work/check.log") |"
    echo
    echo "Largest error of any case against the double-precision reference, rms(x - ref) / rms(ref):"
    echo
    echo "| op | cases | failed | outputs | gradients |"
    echo "| --- | --- | --- | --- | --- |"
    echo "$table"
    if [ -n "$sanitized" ]; then
        echo
        echo "| compute-sanitizer | on \`postnas check ops --backend cuda\` |"
        echo "| --- | --- |"
        printf '%s' "$sanitized"
    fi
} > "$record"
echo "gpu-tests.sh: $([ $failed = 0 ] && echo passed || echo FAILED), record in $record"
exit $failed
