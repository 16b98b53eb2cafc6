# The server as an image, for docker, podman or buildah:
#
#     docker build -t lstm-serving:cpu .                                    ONNX Runtime alone, on the CPU
#     docker build --build-arg EXTRAS=onnx,torch -t lstm-serving:torch .    more backends: the extras in pyproject.toml
#     docker build --target gpu -t lstm-serving:gpu .                       ONNX Runtime on NVIDIA GPUs
#
#     docker run --read-only --cap-drop=ALL --security-opt=no-new-privileges \
#         -v "$PWD/model_repository:/models:ro" -p 8001:8001 -p 8002:8002 lstm-serving:cpu
#
# The GPU image stands on the same small base: CUDA and cuDNN come as wheels, in the very versions that ONNX Runtime was
# built for, and the host brings the driver (NVIDIA Container Toolkit, `docker run --gpus all`).
ARG BASE_IMAGE=python:3.11-slim

FROM ${BASE_IMAGE} AS source
WORKDIR /src
COPY . .
RUN python -m venv /opt/lstm-serving

# pip leaves again when its work is done. PIP_EXTRA_INDEX_URL: an index with CPU wheels of torch, for example.
FROM source AS cpu-environment
ARG EXTRAS=onnx
ARG PIP_EXTRA_INDEX_URL=
RUN /opt/lstm-serving/bin/pip install --no-cache-dir --disable-pip-version-check --quiet ".[${EXTRAS}]" \
    && /opt/lstm-serving/bin/pip uninstall --quiet --yes setuptools pip

FROM source AS gpu-environment
ARG GPU_EXTRAS=onnx-gpu
ARG PIP_EXTRA_INDEX_URL=
RUN /opt/lstm-serving/bin/pip install --no-cache-dir --disable-pip-version-check --quiet ".[${GPU_EXTRAS}]" \
    && /opt/lstm-serving/bin/pip uninstall --quiet --yes setuptools pip

FROM ${BASE_IMAGE} AS runtime
ARG VERSION=unknown
ARG REVISION=unknown
LABEL org.opencontainers.image.title="lstm-serving" \
      org.opencontainers.image.description="A gRPC server for LSTM models (Open Inference Protocol v2)" \
      org.opencontainers.image.licenses="Apache-2.0 AND CC-BY-4.0" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}"
# pip has compiled the bytecode, and the root filesystem may be read-only: nothing is written at run time. The builds of
# ONNX Runtime on PyPI report their use to Microsoft over the network unless they are told not to, from 1.32 on Linux too.
ENV PATH=/opt/lstm-serving/bin:$PATH \
    PYTHONDONTWRITEBYTECODE=1 \
    ORT_DISABLE_TELEMETRY=1 \
    LSTM_SERVE_HOST=0.0.0.0 \
    LSTM_SERVE_MODEL_REPOSITORY=/models
# A number, so that an orchestrator can see that it is not root (runAsNonRoot); nothing in the image belongs to it.
USER 65532:65532
EXPOSE 8001 8002
HEALTHCHECK --interval=15s --timeout=5s --start-period=60s --retries=3 CMD ["lstm-healthcheck"]
# Exec form: lstm-serve is process 1, gets SIGTERM itself, answers what is in flight and exits with 0.
ENTRYPOINT ["lstm-serve"]

FROM runtime AS gpu
COPY --from=gpu-environment /opt/lstm-serving /opt/lstm-serving
ENV LSTM_SERVE_DEVICE=cuda:0 \
    NVIDIA_VISIBLE_DEVICES=all \
    NVIDIA_DRIVER_CAPABILITIES=compute,utility

# Last, so that it is what a build without --target makes.
FROM runtime AS cpu
COPY --from=cpu-environment /opt/lstm-serving /opt/lstm-serving
