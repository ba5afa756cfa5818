#!/usr/bin/env bash
# Builds the fuzz targets of tests/fuzz and runs them.
#
#     scripts/fuzz.sh all               every target for a minute, one after another
#     scripts/fuzz.sh gguf 600          one target, for 600 seconds
#     scripts/fuzz.sh --list            the targets
#
# A target starts from tests/fuzz/corpus/TARGET and tests/fuzz/cases/TARGET; what it learns stays in
# build-fuzz/corpus/TARGET, where the next run goes on. An input that breaks something is written to
# tests/fuzz/cases/TARGET: mend the parser and commit it with the mend, so that every build replays it (ctest -R fuzz/).
#
# Needs clang with its sanitizer runtimes and OpenMP: apt-get install clang libclang-rt-14-dev libomp-14-dev.
# Exit status 0 when every target ran clean.
set -euo pipefail
cd "$(dirname "$0")/.."

targets=()
for f in tests/fuzz/*.c; do
    name=$(basename "$f" .c)
    [ "$name" = replay ] || targets+=("$name")
done

die() { echo "fuzz.sh: $*" >&2; exit 2; }

case "${1-}" in
"" | -h | --help) sed -n '2,15s/^# \{0,1\}//p' "$0"; exit 0 ;;
--list) printf '%s\n' "${targets[@]}"; exit 0 ;;
all) chosen=("${targets[@]}") ;;
*)
    [[ " ${targets[*]} " == *" $1 "* ]] || die "no target $1; there are: ${targets[*]}"
    chosen=("$1")
    ;;
esac
seconds=${2-60}
[[ $seconds =~ ^[1-9][0-9]*$ ]] || die "\"$seconds\" is no number of seconds"
command -v clang > /dev/null || die "no clang; apt-get install clang libclang-rt-14-dev libomp-14-dev"

[ -f build-fuzz/build.ninja ] || cmake --preset fuzz
cmake --build --preset fuzz > build-fuzz/build.log || { tail -n 20 build-fuzz/build.log >&2; die "the build failed"; }

# 2 GiB and 10 s for one input: more is a finding too.
options=(-max_len=16384 -rss_limit_mb=2048 -malloc_limit_mb=1024 -timeout=10 -print_final_stats=1 -verbosity=1)
export OMP_NUM_THREADS=1
failed=()
for name in "${chosen[@]}"; do
    corpus=build-fuzz/corpus/$name
    cases=tests/fuzz/cases/$name
    log=build-fuzz/$name.log
    mkdir -p "$corpus" "$cases"
    build-fuzz/fuzz_"$name" "${options[@]}" -max_total_time="$seconds" -artifact_prefix="$cases/" "$corpus" \
        tests/fuzz/corpus/"$name" "$cases" > "$log" 2>&1 || failed+=("$name")
    rmdir --ignore-fail-on-non-empty "$cases"
    awk -v name="$name" '/^Done [0-9]+ runs/ { runs = $2; s = $5 }
        /number_of_executed_units/ { runs = $2 } /cov: / { for (i = 1; i < NF; i++) if ($i == "cov:") cov = $(i + 1) }
        END { printf "%-16s %6.1f minutes %10d executions %6d edges\n", name, s / 60, runs, cov }' "$log"
    [ "${failed[*]: -1}" != "$name" ] || { echo "  broken: see $log, and the new file in $cases"; }
done
[ ${#failed[@]} -eq 0 ] || die "not clean: ${failed[*]}"
