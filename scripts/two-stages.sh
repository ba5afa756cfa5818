#!/usr/bin/env bash
# The two-stage recipe on the small base, over several seeds: trains configs/quickstart-finetune.yaml once per seed and
# holds recall and multiple-choice scores on held-out samples against the teacher's, the base itself.
#
#     scripts/two-stages.sh OUT SEED...                      # each run is OUT/seed-SEED; one that is there goes on
#     scripts/two-stages.sh OUT 1 2 3 -- --set stages.0.tokens=3e5 ...     # what follows -- goes to `postnas finetune`
#
# Needs a built postnas. Exit status 1 when a seed recovers less than 95 % of a score of the teacher's. About one minute
# of a core for a seed.
set -euo pipefail
case ${1-} in -h | --help) sed -n '2,9s/^# \{0,1\}//p' "$0"; exit 0 ;; esac
die() { echo "two-stages.sh: $*" >&2; exit 2; }
[ $# -ge 2 ] || die "usage: $0 OUT SEED... [-- ARGUMENT...]"
out=$1
shift
seeds=()
while [ $# -gt 0 ] && [ "$1" != -- ]; do
    [[ $1 =~ ^[0-9]+$ ]] || die "seed $1 is no whole number"
    seeds+=("$1")
    shift
done
[ ${#seeds[@]} -gt 0 ] || die "name a seed"
[ $# -eq 0 ] || shift
case $out in /*) ;; *) out=$PWD/$out ;; esac
cd "$(dirname "$0")/.."
postnas=build/postnas
[ -x "$postnas" ] || die "build first: scripts/quickstart.sh does"
mkdir -p "$out"

score() { "$postnas" eval "$1" --config configs/quickstart.yaml --quiet --output "$2" > /dev/null; }
# Of tasks.recall.accuracy.mean and tasks.facts.accuracy.mean; postnas writes a key on each line.
means() {
    awk '/[{]$/ { key[++depth] = $1 }
         /^ *[}],?$/ { depth-- }
         $1 == "\"mean\":" && key[depth] == "\"accuracy\":" { mean[key[depth - 1]] = $2 + 0 }
         END { if (!("\"recall\":" in mean && "\"facts\":" in mean)) exit 1
               print mean["\"recall\":"], mean["\"facts\":"] }' "$1" || die "$1: no accuracy of recall and facts"
}

score data/quickstart-base "$out/teacher.json"
read -r recall facts < <(means "$out/teacher.json")
printf '%-10s %8s %8s\n' "" recall facts
printf '%-10s %8.4f %8.4f\n' teacher "$recall" "$facts"
failed=0
for seed in "${seeds[@]}"; do
    run=$out/seed-$seed
    "$postnas" finetune --config configs/quickstart-finetune.yaml --quiet --set seed="$seed" --set output="$run" "$@"
    score "$run/model" "$run/scores.json"
    read -r r f < <(means "$run/scores.json")
    printf '%-10s %8.4f %8.4f\n' "seed $seed" "$r" "$f"
    awk -v r="$r" -v f="$f" -v recall="$recall" -v facts="$facts" \
        'BEGIN { exit !(r + 0 >= 0.95 * recall && f + 0 >= 0.95 * facts) }' || failed=1
done
if [ $failed = 1 ]; then
    echo "two-stages.sh: less than 95 % of the teacher's score" >&2
    exit 1
fi
