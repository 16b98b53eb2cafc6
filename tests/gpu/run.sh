#!/bin/sh
# Tests the CUDA path of every backend and measures it: sh tests/gpu/run.sh [WHEELS]
#
# Needs an NVIDIA GPU, and a python3 (or PYTHON) that has torch for CUDA, onnx and pytest. What else is there is used; a
# backend that is not is skipped, and the last lines say which. On a machine without a network WHEELS is a folder of wheels
# to install into that Python; a large wheel may be there in pieces, NAME.whl.part-aa, NAME.whl.part-ab and so on.
set -eu
cd "$(dirname "$0")/../.."
python=${PYTHON:-python3}
if [ $# -gt 0 ]; then
    wheels=build/gpu/wheels
    rm -rf "$wheels" && mkdir -p "$wheels"
    cp "$1"/*.whl "$wheels" 2> /dev/null || true
    for first in "$1"/*.whl.part-aa; do
        [ -e "$first" ] || continue
        whole=${first%.part-aa}
        cat "$whole".part-* > "$wheels/${whole##*/}"
    done
    # Into the Python itself: ONNX Runtime looks for CUDA and cuDNN beside its own folder, and a virtual environment that is made
    # from another one does not see what that one holds.
    "$python" -m pip install --quiet --disable-pip-version-check --no-index --no-deps "$wheels"/*.whl
fi
export TF_CPP_MIN_LOG_LEVEL=2 TF_ENABLE_ONEDNN_OPTS=0
"$python" -c 'from serving import errors
from serving.machine import devices
try:
    devices.require_gpu(0)
except errors.BackendUnavailable as error:
    raise SystemExit(f"nothing to test: {error}")'
# The packages may be of other releases than those that we pin: what they warn of is no fault of ours.
"$python" -m pytest tests/gpu -rs -s -W default
"$python" -m tests.gpu.measure
