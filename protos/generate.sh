#!/bin/sh
# Compiles protos/*.proto from the repository's root, so that the generated imports need no rewriting.
#   generate.sh install PYTHON ENVIRONMENT   makes the environment with the compiler
#   generate.sh COMPILER_PYTHON OUT          writes OUT/protos/*_pb2.py and .pyi
# The compiler's version is fixed: code of grpcio-tools 1.71.2 imports on protobuf 5.29 to 7, code of newer ones does not.
set -eu
if [ "$1" = install ]; then
    "$2" -m venv "$3"
    "$3/bin/python" -m pip install --quiet --disable-pip-version-check 'grpcio-tools==1.71.2' 'setuptools<81'
else
    mkdir -p "$2"
    "$1" -W ignore -m grpc_tools.protoc -I. --python_out="$2" --pyi_out="$2" protos/model_config.proto protos/grpc_service.proto protos/onnx_graph.proto protos/sequence_admin.proto
fi
