"""Devices by name, and the sentence for a package that is missing."""

from __future__ import annotations

import ctypes
import platform
import sys
from pathlib import Path

import pytest

from serving.errors import BackendUnavailable
from serving.machine import devices
from serving.machine.devices import cuda, cuda_index, require_package


@pytest.mark.parametrize(("device", "index"), [("cpu", None), ("cuda:0", 0), ("cuda:12", 12)])
def test_a_device_by_its_name(device: str, index: int | None) -> None:
    assert cuda_index(device) == index
    if index is not None:
        assert cuda(index) == device


@pytest.mark.parametrize(
    "device", ["", "CPU", "gpu", "cuda", "cuda:", "cuda:-1", "cuda:1000", "cuda:0 ", "cuda:\u0661"]
)
def test_what_is_no_device(device: str) -> None:
    with pytest.raises(BackendUnavailable) as raised:
        cuda_index(device)
    assert str(raised.value) == f"device is {device!r}; it must be cpu or cuda:N, with N counted from 0"


def test_a_package_is_looked_for_and_not_imported() -> None:
    before = set(sys.modules)
    require_package("xmlrpc", "anything")
    assert "xmlrpc" not in set(sys.modules) - before
    with pytest.raises(
        BackendUnavailable, match=r"there_is_none is not installed: pip install 'lstm-serving\[torch\]'"
    ):
        require_package("there_is_none", "torch")


def test_a_processor_is_known_by_what_it_can_do_and_not_by_how_fast_it_runs_now(tmp_path: Path) -> None:
    said = tmp_path / "cpuinfo"
    said.write_text("processor\t: 0\nmodel name\t: A\ncpu MHz\t\t: 2000\nflags\t\t: avx\n\nprocessor\t: 1\n")
    first = devices.processor(said)
    said.write_text("processor\t: 0\nmodel name\t: A\ncpu MHz\t\t: 3000\nflags\t\t: avx\n\nprocessor\t: 1\n")
    assert devices.processor(said) == first
    said.write_text("processor\t: 0\nmodel name\t: A\ncpu MHz\t\t: 3000\nflags\t\t: avx avx512f\n")
    assert devices.processor(said) != first
    assert devices.processor(tmp_path / "none").startswith(platform.machine())


def test_a_gpu_has_the_name_that_the_driver_gives_it(monkeypatch: pytest.MonkeyPatch) -> None:
    class Driver:
        """As much of libcuda as is asked."""

        there = 1

        def __init__(self, name: str) -> None:
            assert name == "libcuda.so.1"

        def cuInit(self, flags: int) -> int:
            return 0

        def cuDeviceGet(self, device: object, index: int) -> int:
            return 0 if index < self.there else 101

        def cuDeviceGetName(self, name: ctypes.Array[ctypes.c_char], size: int, device: object) -> int:
            name.value = b"A GPU"
            return 0

    monkeypatch.setattr(ctypes, "CDLL", Driver)
    assert (devices.gpu(0), devices.gpu(1)) == ("A GPU", "")

    def missing(name: str) -> None:
        raise OSError("cannot open shared object file")

    monkeypatch.setattr(ctypes, "CDLL", missing)
    assert devices.gpu(0) == ""
