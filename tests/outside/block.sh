#!/usr/bin/env bash
# A block that is not in the tree: the one that docs/adding-a-block.md builds, as its reader would have it. Builds postnas
# with it, runs the block suite on it, searches with it.
#
#     tests/outside/block.sh WORK [ARGUMENT...]     # ARGUMENTs go to cmake
#
# WORK is made, and kept: the next run builds what has changed.
set -euo pipefail
source=$(cd "$(dirname "$0")/../.." && pwd)
work=$1
shift
mkdir -p "$work"

fail() { echo "block.sh: $*" >&2; exit 1; }
quietly() { "$@" > "$work/log" 2>&1 || { cat "$work/log"; fail "failed: $*"; }; }
holds() { tr -s ' \n' ' ' < "$work/log" | grep -F -- "$1" > /dev/null || { cat "$work/log"; fail "says nothing of \"$1\""; }; }
configure() { cmake -S "$source" -B "$work/build" "${settings[@]}" -DPOSTNAS_EXTRA_BLOCKS="$1"; }
settings=("$@")

rm -rf "$work/blocks" "$work/wrong" "$work/empty" "$work/run"
mkdir "$work/blocks" "$work/wrong" "$work/empty"
awk '/^```c$/ { on = 1; next } /^```$/ { on = 0 } on' "$source/docs/adding-a-block.md" > "$work/blocks/ema.c"

# folders that hold no block
touch "$work/wrong/gla.c"
! configure "$work/wrong" > "$work/log" 2>&1 || fail "a second block of a name was taken"
holds "gla.c is there already; choose another name"
! configure "$work/empty" > "$work/log" 2>&1 || fail "a folder without blocks was taken"
holds "has no .c file"

quietly configure "$work/blocks"
quietly cmake --build "$work/build" --target postnas test_blocks_contract test_io_model_load
quietly "$work/build/test_blocks_contract" ema
quietly "$work/build/test_io_model_load" # a hybrid of all blocks, written and read
quietly "$work/build/postnas" list blocks ema
holds "norm_eps"

cd "$source" # the configuration names its base from here
quietly "$work/build/postnas" search --quiet --config configs/quickstart.yaml --set output="$work/run" \
    --set "supernet.blocks=[{type: ema, num_heads: 4, head_dim: 16}]" --set supernet.tokens=2048 \
    --set distill.tokens=1024 --set search.beam.width=1 --set compare.exhaustive=false --set heldout.samples=1 \
    --set "search.tasks=[{name: recall, kind: recall, skill: recall, documents: 2, document_bytes: 255, seed: 100}]"
holds "2 of 8 layers keep full attention"
holds "ema*"
quietly "$work/build/postnas" generate "$work/run/model" --prompt "the" --tokens 4
