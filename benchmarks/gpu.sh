#!/usr/bin/env bash
# Training and decoding beside transformers + PEFT on an NVIDIA GPU, whisper-small and large-v3-turbo, bf16.
# For a bare machine: needs PyTorch with CUDA, transformers and PEFT, no network; installs and builds nothing.
#
#   benchmarks/gpu.sh [OUT] [further arguments of python -m benchmarks]      OUT: runs/benchmarks/gpu.json
#
# Ends after 8 minutes at the latest; the rows that are finished by then are in OUT.
# PYTHON chooses the interpreter. Without a GPU, to try it: benchmarks/gpu.sh out.json --device cpu --geometry tiny --quick
set -euo pipefail
cd "$(dirname "$0")/.."
out=${1:-runs/benchmarks/gpu.json}
export PYTHONPATH="$PWD${PYTHONPATH:+:$PYTHONPATH}" HF_HUB_OFFLINE=1 TOKENIZERS_PARALLELISM=false

timeout --signal=INT --kill-after=5 470 "${PYTHON:-python3}" -m benchmarks \
    --device cuda --only training decoding --geometry small large-v3-turbo --out "$out" "${@:2}" || {
    code=$?
    [ "$code" = 124 ] && echo "8 minutes are over; what was finished is in $out" >&2
    exit "$code"
}
echo "written: $out"
