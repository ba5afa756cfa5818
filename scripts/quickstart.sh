#!/usr/bin/env bash
# From a clean clone to a searched, distilled and measured hybrid model: installs what is missing, builds, searches
# (configs/quickstart.yaml) and measures the result. Arguments go to `postnas search`, for example
#
#     scripts/quickstart.sh
#     scripts/quickstart.sh --set seed=2 --set output=runs/seed2
#
# Stopped half way, the same command goes on where it was.
set -euo pipefail
case ${1-} in -h | --help) sed -n '2,8s/^# \{0,1\}//p' "$0"; exit 0 ;; esac
cd "$(dirname "$0")/.."

scripts/setup.sh
[ -f build/build.ninja ] || cmake --preset release
cmake --build --preset release --target postnas

config=configs/quickstart.yaml
# Every value as search will see it; a mistake in an argument ends here, with its sentence.
resolved=$(build/postnas config search --print --config "$config" "$@")
output=$(sed -n 's/^output: \(.*[^ ]\) *# .*/\1/p' <<< "$resolved")

build/postnas search --config "$config" "$@"
echo
build/postnas eval "$output/model" --config "$output/config.yaml"

echo
echo "model:   $output/model (a Hugging Face directory)"
[ ! -e "$output/report.html" ] || echo "report:  $output/report.html"
