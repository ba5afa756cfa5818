#!/usr/bin/env bash
# The comparison of selectors over several seeds: runs a search with compare.selectors once per seed, then prints, for
# every selector and number of layers, the mean over the seeds of the held-out objective, the smallest and the largest.
#
#     scripts/compare-selectors.sh OUT CONFIG SEED...      # each run is OUT/seed-SEED; one that is there goes on
#     scripts/compare-selectors.sh OUT                     # only prints what OUT/seed-*/result.json hold
#
# Needs jq, and a built postnas to run. The last columns: how many paths a selector measured (mean), and in how many
# seeds its placement was the one that did best held-out of all selectors'.
set -euo pipefail
case ${1-} in -h | --help) sed -n '2,11s/^# \{0,1\}//p' "$0"; exit 0 ;; esac
die() { echo "compare-selectors.sh: $*" >&2; exit 2; }
[ $# -eq 1 ] || [ $# -ge 3 ] || die "usage: $0 OUT [CONFIG SEED...]"
command -v jq > /dev/null || die "jq is not installed; apt-get install jq"
out=$1
if [ $# -ge 3 ]; then
    config=$2
    postnas=$(dirname "$0")/../build/postnas
    [ -x "$postnas" ] || die "build first: scripts/quickstart.sh does"
    for seed in "${@:3}"; do
        [[ $seed =~ ^[0-9]+$ ]] || die "seed $seed is no whole number"
    done
    for seed in "${@:3}"; do
        "$postnas" search --config "$config" --set seed="$seed" --set output="$out/seed-$seed"
    done
fi
results=("$out"/seed-*/result.json)
[ -e "${results[0]}" ] || die "$out holds no seed-*/result.json"
for result in "${results[@]}"; do
    jq -e 'has("selectors")' "$result" > /dev/null || die "$result compares no selectors; set compare.selectors"
done
[ "$(jq -rs 'map(.selectors | [.objective, (.rows | map([.selector, .full_attention]))]) | unique | length' "${results[@]}")" = 1 ] ||
    die "the runs in $out compare different things; give each comparison an OUT of its own"

jq -rs '
    def digits: . * 10 | round / 10;
    length as $seeds | .[0].selectors as $first |
    ($first | if .ascending then -1 else 1 end) as $sign |
    # the best mean of every seed and number of layers
    map(.selectors.rows | group_by(.full_attention) |
        map({ key: "\(.[0].full_attention)", value: (map($sign * .heldout.mean) | min) }) | from_entries) as $best |
    map(.selectors.rows) as $rows |
    "held-out \($first.objective), \(if $first.ascending then "more" else "less" end) is better; \($seeds) seeds",
    (["full attention", "selector", "mean", "min", "max", "paths", "best in"] | @tsv),
    (range($first.rows | length) as $i |
        [range($seeds) | $rows[.][$i] + { first: ($sign * $rows[.][$i].heldout.mean == $best[.]["\($rows[.][$i].full_attention)"]) }] |
        map(.heldout.mean) as $mean |
        [.[0].full_attention, .[0].selector, ($mean | add / $seeds), ($mean | min), ($mean | max),
         (map(.paths) | add / $seeds | digits), "\(map(select(.first)) | length) of \($seeds)"] | @tsv)
' "${results[@]}" | awk -F'\t' '
    NF < 2 { print; next }
    $1 + 0 { for (i = 3; i <= 5; i++) $i = sprintf("%.4f", $i) }
    { printf "%-14s  %-12s  %9s  %9s  %9s  %5s  %s\n", $1, $2, $3, $4, $5, $6, $7 }'
