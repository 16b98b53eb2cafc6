#!/bin/sh
# perf_analyzer, the field's load generator: a client that no one here wrote.
#   perf_analyzer.sh install PYTHON DIR   puts the binary and the CUDA runtime that it is linked against into DIR
#   perf_analyzer.sh run DIR ARGUMENTS    runs it
# The binary travels inside the wheel of tritonclient 2.50.0 (later ones want a newer glibc) and needs Debian's libb64-0d.
set -eu
if [ "$1" = install ]; then
    rm -rf "$3" && mkdir -p "$3/wheels"
    "$2" -m pip download --quiet --disable-pip-version-check --no-deps --only-binary=:all: --dest "$3/wheels" \
        tritonclient==2.50.0 nvidia-cuda-runtime-cu12==12.9.79
    for wheel in "$3"/wheels/*.whl; do "$2" -m zipfile -e "$wheel" "$3/unpacked"; done
    mv "$3/unpacked/tritonclient-2.50.0.data/data/bin/perf_analyzer" "$3/perf_analyzer"
    chmod +x "$3/perf_analyzer"
    mv "$3/unpacked/nvidia/cuda_runtime/lib" "$3/lib"
    rm -rf "$3/wheels" "$3/unpacked"
else
    dir=$2
    shift 2
    LD_LIBRARY_PATH="$dir/lib" exec "$dir/perf_analyzer" "$@"
fi
