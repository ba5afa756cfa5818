#!/usr/bin/env bash
# SmolLM2-135M-Instruct in postnas and in llama.cpp, on the same 2,048 tokens of English: token ids, first choices, KL.
#
#     experiments/02-smollm2-vs-llama.cpp/compare.sh [MODEL_DIR] [WORK_DIR]    default: models/smollm2-135m, a new one
#
# llama.cpp comes from PyPI as the source of llama-cpp-python and is built with BLAS (about 10 minutes on two cores) in a
# virtual environment in WORK_DIR; PYTHON=path to an interpreter that has the requirements leaves that out. The model
# directory and the GGUF file it was made from come from data/fetch-smollm2.sh, the text from data/fetch-english.sh.
# Exit status 1 when an aim is missed.
set -euo pipefail

here=$(cd "$(dirname "$0")" && pwd)
root=$(cd "$here/../.." && pwd)
postnas=${POSTNAS:-$root/build/postnas}
model=${1:-$root/models/smollm2-135m}
work=${2:-$(mktemp -d)}
gguf=${GGUF:-$(dirname "$model")/.cache/smollm2/SmolLM2-135M-Instruct.Q4_1.gguf}
python=${PYTHON:-$work/venv/bin/python}

[ -f "$gguf" ] || { echo "compare: $gguf is not there; run data/fetch-smollm2.sh, or name the file with GGUF=" >&2; exit 2; }
mkdir -p "$work"
if [ ! -x "$python" ]; then
    echo "building llama.cpp with BLAS"
    python3 -m venv "$work/venv"
    CMAKE_ARGS="-DGGML_BLAS=ON -DGGML_BLAS_VENDOR=OpenBLAS -DLLAVA_BUILD=OFF" \
        "$python" -m pip install --quiet --disable-pip-version-check -r "$here/requirements.txt"
fi
if [ ! -f "$work/english.txt" ]; then
    POSTNAS=$postnas "$root/data/fetch-english.sh" "$model" "$work/shards" "$work/debs" >/dev/null
    deb=$(ls "$work"/debs/debian-history_*.deb)
    dpkg-deb --fsys-tarfile "$deb" | tar -xO ./usr/share/doc/debian-history/docs/project-history.en.txt.gz | zcat |
        awk 'NR >= 100 && NR < 420' >"$work/english.txt"
fi
if [ ! -d "$work/ids" ]; then
    "$postnas" data --tokenizer "$model" --out "$work/ids" --format text "$work/english.txt" >/dev/null
fi

for kind in blas rounded; do
    "$python" "$here/llama_logits.py" "$kind" "$gguf" "$work" 2>"$work/$kind.log" || { cat "$work/$kind.log" >&2; exit 1; }
done
"$python" "$here/llama_logits.py" self "$gguf" "$work"
echo "postnas against llama.cpp's own kernels (8-bit activations; no limit):"
"$postnas" check model "$model" --expected "$work/rounded.safetensors" --kl 1
echo "postnas against llama.cpp with BLAS:"
"$postnas" check model "$model" --expected "$work/blas.safetensors" --kl 1e-3 --top1 0.99
