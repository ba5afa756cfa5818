#!/usr/bin/env bash
# Makes a folder that runs on a bare node: the program with the CUDA backend, and in lib/ beside it every library that it
# needs but for the C library and the NVIDIA driver. Programs there find lib/ by themselves (RPATH $ORIGIN/lib).
#
#     scripts/bundle.sh                     builds (preset cuda) and makes build-cuda/bundle
#     scripts/bundle.sh --tests             with the GPU tests and the script that runs them
#     scripts/bundle.sh --cublas            with cuBLASLt (half a gigabyte), for nodes without CUDA's libraries
#     scripts/bundle.sh --output FOLDER     another folder; it must be new or a bundle
set -euo pipefail
cd "$(dirname "$0")/.."

out=build-cuda/bundle tests=0 cublas=0
while [ $# -gt 0 ]; do
    case $1 in
    --tests) tests=1 ;;
    --cublas) cublas=1 ;;
    --output)
        [ $# -gt 1 ] || { echo "bundle.sh: --output needs a folder" >&2; exit 2; }
        out=$2
        shift
        ;;
    -h | --help) sed -n '2,8s/^# \{0,1\}//p' "$0"; exit 0 ;;
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
mkdir -p "$out/lib"
for target in "${targets[@]}"; do
    strip -o "$out/$target" "build-cuda/$target"
    ldd "build-cuda/$target" | awk '$2 == "=>" && $3 ~ /^\// { print $3 }'
done | sort -u | while read -r library; do
    case ${library##*/} in
    libc.so.* | libm.so.* | libdl.so.* | librt.so.* | libpthread.so.* | libresolv.so.* | ld-linux*) ;;
    *) strip --strip-unneeded -o "$out/lib/${library##*/}" "$library" ;;
    esac
done
if [ -f build-cuda/postnas_mpi.so ]; then # for the node's own MPI, where it has the same
    strip --strip-unneeded -o "$out/postnas_mpi.so" build-cuda/postnas_mpi.so
fi
if [ $cublas = 1 ]; then
    folder=$(dirname "$(readlink -f "$(command -v nvcc)")")/../lib64
    cp -L "$folder"/libcublasLt.so.[0-9]* "$out/lib/"
fi
if [ $tests = 1 ]; then
    cp scripts/gpu-tests.sh "$out/"
    cp -r tests/data/golden configs "$out/"
    mkdir "$out/data"
    cp -r data/quickstart-base "$out/data/"
fi
{
    git rev-parse HEAD
    [ -z "$(git status --porcelain --untracked-files=no)" ] || echo "with changes that are not committed"
} > "$out/COMMIT"
du -sh "$out" | awk '{ print $2 ": " $1 }'
