#!/usr/bin/env bash
# Makes a folder that runs on a bare node: the program with the CUDA backend, and in lib/ beside it every library that it
# needs but for the C library and the NVIDIA driver. Programs there find lib/ by themselves (RPATH $ORIGIN/lib).
#
#     scripts/bundle.sh                     builds (preset cuda) and makes build-cuda/bundle, 1.4 GB: with cuBLASLt, and with
#                                           cuDNN and NCCL where this machine has them
#     scripts/bundle.sh --small             without these three (0.1 GB), for nodes that have CUDA's libraries
#     scripts/bundle.sh --tests             with the GPU tests and the script that runs them
#     scripts/bundle.sh --output FOLDER     another folder; it must be new or a bundle
set -euo pipefail
cd "$(dirname "$0")/.."

out=build-cuda/bundle tests=0 small=0
while [ $# -gt 0 ]; do
    case $1 in
    --tests) tests=1 ;;
    --small) small=1 ;;
    --output)
        [ $# -gt 1 ] || { echo "bundle.sh: --output needs a folder" >&2; exit 2; }
        out=$2
        shift
        ;;
    -h | --help) sed -n '2,9s/^# \{0,1\}//p' "$0"; exit 0 ;;
    *) echo "bundle.sh: unknown option $1; see scripts/bundle.sh --help" >&2; exit 2 ;;
    esac
    shift
done
if [ -e "$out" ] && [ ! -f "$out/COMMIT" ]; then
    echo "bundle.sh: $out is there and is no bundle; name another folder" >&2
    exit 2
fi

scripts/setup.sh
[ -f build-cuda/build.ninja ] || cmake --preset cuda
targets=(postnas)
if [ $tests = 1 ]; then
    for test in tests/gpu/*.c; do targets+=("test_gpu_$(basename "$test" .c)"); done
fi
cmake --build --preset cuda --target "${targets[@]}"
if build-cuda/postnas check ops add --backend cuda 2>&1 | grep -q "no CUDA backend"; then
    echo "bundle.sh: this build has no CUDA backend; cmake --preset cuda says why" >&2
    exit 2
fi

rm -rf "$out"
mkdir -p "$out/lib" "$out/data"
# The libraries that the files named need, and what these need: all but the C library's own and the driver's.
needed_by() {
    ldd "$@" | awk '$2 == "=>" && $3 ~ /^\// { print $3 }' | sort -u |
        grep -vE '/(libc|libm|libdl|librt|libpthread|libresolv|libcuda|libnvidia-[a-z]*)\.so\.|/ld-linux'
}
for target in "${targets[@]}"; do strip -o "$out/$target" "build-cuda/$target"; done
needed_by "${targets[@]/#/build-cuda/}" | while read -r library; do
    strip --strip-unneeded -o "$out/lib/${library##*/}" "$library"
done
if [ -f build-cuda/postnas_mpi.so ]; then # for the node's own MPI, where it has the same
    strip --strip-unneeded -o "$out/postnas_mpi.so" build-cuda/postnas_mpi.so
fi
# Loaded when they are first used: linear layers, softmax attention, several GPUs.
for name in libcublasLt libcudnn libnccl; do
    [ $small = 0 ] || break
    mapfile -t found < <(ldconfig -p | awk -v name="^$name" '$1 ~ name && $1 ~ /\.so\.[0-9]+$/ { print $NF }')
    [ ${#found[@]} -gt 0 ] || found=("$(dirname "$(readlink -f "$(command -v nvcc)")")"/../lib64/"$name"*.so.*[0-9])
    if [ ! -e "${found[0]}" ]; then
        echo "bundle.sh: no $name here: nodes must have it, or do without what needs it" >&2
        continue
    fi
    cp -L "${found[@]}" "$out/lib/"
    needed_by "${found[@]}" | while read -r library; do [ -e "$out/lib/${library##*/}" ] || cp -L "$library" "$out/lib/"; done
done
cp -r configs scripts/cluster "$out/"
cp -r data/quickstart-base "$out/data/"
if [ $tests = 1 ]; then
    cp scripts/gpu-tests.sh "$out/"
    cp -r tests/data/golden "$out/"
fi
{
    git rev-parse HEAD
    [ -z "$(git status --porcelain --untracked-files=no)" ] || echo "with changes that are not committed"
} > "$out/COMMIT"
du -sh "$out" | awk '{ print $2 ": " $1 }'
