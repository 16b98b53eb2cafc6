"""The sentences that say what is missing before a backend can run on a device, provoked without that device."""

from __future__ import annotations

import ctypes
import importlib.metadata
import importlib.util

import pytest

from serving import backends
from serving.backends import onnx_runtime
from serving.errors import BackendUnavailable
from serving.machine import devices

EXTRAS = {"onnx_runtime": "onnx", "torchscript": "torch", "saved_model": "tensorflow"}
REAL = sorted(set(backends.names()) - {"fake"})


class Driver:
    """Stands for libcuda.so.1 with so many GPUs."""

    def __init__(self, gpus: int, status: int = 0) -> None:
        self._gpus, self._status = gpus, status

    def cuInit(self, flags: int) -> int:
        return self._status

    def cuDeviceGetCount(self, count: ctypes._CArgObject) -> int:
        count._obj.value = self._gpus  # type: ignore[attr-defined]
        return 0


@pytest.mark.parametrize("name", REAL)
def test_a_missing_package_names_its_extra(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    assert name in EXTRAS, f"backend {name} is new: say in EXTRAS which extra installs it"
    monkeypatch.setattr(importlib.util, "find_spec", lambda package: None)
    with pytest.raises(BackendUnavailable, match=rf"pip install 'lstm-serving\[{EXTRAS[name]}\]'"):
        backends.module(name).available("cpu")


@pytest.mark.parametrize("name", REAL)
def test_a_missing_driver_is_said(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(library: str) -> None:
        raise OSError(f"{library}: cannot open shared object file")

    monkeypatch.setattr(ctypes, "CDLL", missing)
    with pytest.raises(BackendUnavailable, match="needs an NVIDIA driver"):
        backends.module(name).available("cuda:0")


@pytest.mark.parametrize("name", REAL)
def test_a_gpu_out_of_range_is_said_with_those_there_are(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ctypes, "CDLL", lambda library: Driver(gpus=2))
    with pytest.raises(BackendUnavailable, match="no cuda:2; the driver's devices are: cuda:0, cuda:1"):
        backends.module(name).available("cuda:2")


def test_a_driver_that_fails_is_said_with_its_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ctypes, "CDLL", lambda library: Driver(gpus=1, status=803))
    with pytest.raises(BackendUnavailable, match="error 803"):
        devices.require_gpu(0)


def test_the_two_onnxruntime_packages_exclude_each_other(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.metadata, "version", lambda name: "1.32.0")
    with pytest.raises(BackendUnavailable, match="pip uninstall -y onnxruntime onnxruntime-gpu"):
        backends.module("onnx_runtime").available("cpu")


def test_a_build_for_cpus_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    onnxruntime = onnx_runtime._onnxruntime()
    import tensorflow
    import torch

    monkeypatch.setattr(devices, "require_gpu", lambda index: None)
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: ["CPUExecutionProvider"])
    monkeypatch.setattr(torch.version, "cuda", None)
    monkeypatch.setattr(tensorflow.test, "is_built_with_cuda", lambda: False)
    for name in REAL:
        with pytest.raises(BackendUnavailable, match="is built for CPUs: pip"):
            backends.module(name).available("cuda:0")
