#!/bin/sh
# Tests the CUDA path of every backend and measures it: sh tests/gpu/run.sh [WHEELS]
#
# Needs an NVIDIA GPU, and a python3 (or PYTHON) that has torch for CUDA, onnx and pytest. What else is there is used; a
# backend that is not is skipped, and the last lines say which. On a machine without a network WHEELS is a folder of wheels
# to install beside them; a large wheel may be there in pieces, NAME.whl.part-aa, NAME.whl.part-ab and so on.
set -eu
cd "$(dirname "$0")/../.."
python=${PYTHON:-python3}
env=build/gpu
if [ $# -gt 0 ]; then
    "$python" -m venv --system-site-packages "$env"
    mkdir -p "$env/wheels"
    cp "$1"/*.whl "$env/wheels" 2> /dev/null || true
    for first in "$1"/*.whl.part-aa; do
        [ -e "$first" ] || continue
        whole=${first%.part-aa}
        cat "$whole".part-* > "$env/wheels/${whole##*/}"
    done
    "$env/bin/python" -m pip install --quiet --disable-pip-version-check --no-index --no-deps "$env"/wheels/*.whl
    python=$env/bin/python
fi
export TF_CPP_MIN_LOG_LEVEL=2 TF_ENABLE_ONEDNN_OPTS=0
"$python" -c 'from serving import errors
from serving.machine import devices
try:
    devices.require_gpu(0)
except errors.BackendUnavailable as error:
    raise SystemExit(f"nothing to test: {error}")'
"$python" -m pytest tests/gpu -rs -s
"$python" -m tests.gpu.measure
