#!/usr/bin/env bash
# Builds and runs the tests.
#
#     scripts/test.sh                    the quick set, release build
#     scripts/test.sh --slow             the tests labelled slow only
#     scripts/test.sh --all              both
#     scripts/test.sh --preset asan      another preset of CMakePresets.json: dev, asan, ubsan, tsan
#     scripts/test.sh -R 'io/'           arguments ctest takes are handed on
#
# Exit status 0 when every test passed. The last line counts them.
set -euo pipefail
cd "$(dirname "$0")/.."

preset=release
labels=(-LE slow)
handed_on=()
while [ $# -gt 0 ]; do
    case $1 in
    --preset)
        [ $# -gt 1 ] || { echo "test.sh: --preset needs a name" >&2; exit 2; }
        preset=$2
        shift
        ;;
    --slow) labels=(-L slow) ;;
    --all) labels=() ;;
    -h | --help) sed -n '2,10s/^# \{0,1\}//p' "$0"; exit 0 ;;
    *) handed_on+=("$1") ;;
    esac
    shift
done
build=build
[ "$preset" = release ] || build=build-$preset

scripts/setup.sh
[ -f "$build/build.ninja" ] || cmake --preset "$preset"
cmake --build --preset "$preset"

# Two threads each, so that parallel code is tested as such, but for ThreadSanitizer (tests/tsan.supp).
[ "$preset" = tsan ] && threads=1 || threads=2
export OMP_NUM_THREADS=${OMP_NUM_THREADS:-$threads}
export ASAN_OPTIONS=${ASAN_OPTIONS:-detect_leaks=1}
export TSAN_OPTIONS=${TSAN_OPTIONS:-suppressions=$PWD/tests/tsan.supp}
export LSAN_OPTIONS=${LSAN_OPTIONS:-suppressions=$PWD/tests/lsan.supp:print_suppressions=0}

result=$PWD/$build/tests.xml
rm -f "$result"
failed=0
ctest --test-dir "$build" -j "$(nproc)" --output-on-failure --no-tests=error --output-junit "$result" "${labels[@]}" \
    "${handed_on[@]}" || failed=1

count() { sed -n "s/^[[:space:]]*$1=\"\([0-9]*\)\".*/\1/p; /<testcase/q" "$result" | head -n 1; }
if [ -s "$result" ]; then
    n_failed=$(count failures)
    n_skipped=$(($(count disabled) + $(count skipped)))
    n_passed=$(($(count tests) - n_failed - n_skipped))
    [ "$n_failed" -eq 0 ] || failed=1
    line="$n_passed passed, $n_failed failed"
    [ "$n_skipped" -eq 0 ] || line+=", $n_skipped skipped"
    echo "$line"
fi
exit $failed
