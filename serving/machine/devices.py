"""Devices by name, and what must be there before a backend can use one, found without importing a framework.

The driver is asked directly, so that "no driver", "no such GPU" and "a package built for CPUs" are three different
sentences. Asking the CUDA driver for its GPUs (`cuInit`) makes no context and takes no GPU memory, and it obeys
CUDA_VISIBLE_DEVICES.
"""

from __future__ import annotations

import ctypes
import hashlib
import importlib.util
import platform
import re
from pathlib import Path

from serving.errors import BackendUnavailable

CPU = "cpu"


def processor(said: Path = Path("/proc/cpuinfo")) -> str:
    """What kind of processor this is and what it can do, as far as the system says: the same text on alike machines."""
    try:
        lines = said.read_text().split("\n\n")[0].splitlines()
    except OSError:
        lines = []
    kept = sorted(line for line in lines if line.split("\t")[0] in ("model name", "flags", "Features", "CPU part"))
    return f"{platform.machine()} {hashlib.sha256(''.join(kept).encode()).hexdigest()[:16]}"


def cuda(index: int) -> str:
    """How the GPU of that number is called."""
    return f"cuda:{index}"


def cuda_index(device: str) -> int | None:
    """N for "cuda:N", None for "cpu". Raises `BackendUnavailable` for any other text."""
    if device == CPU:
        return None
    match = re.fullmatch(r"cuda:([0-9]{1,3})", device)
    if match is None:
        raise BackendUnavailable(f"device is {device!r}; it must be cpu or cuda:N, with N counted from 0")
    return int(match.group(1))


def gpu(index: int) -> str:
    """What the driver calls the GPU of that index; "" where there is none."""
    try:
        driver = ctypes.CDLL("libcuda.so.1")
    except OSError:
        return ""
    name = ctypes.create_string_buffer(256)
    device = ctypes.c_int(0)
    failed = (
        driver.cuInit(0)
        or driver.cuDeviceGet(ctypes.byref(device), index)
        or driver.cuDeviceGetName(name, len(name), device)
    )
    return "" if failed else name.value.decode(errors="replace")


def require_package(package: str, extra: str) -> None:
    """Raises `BackendUnavailable`, naming the extra to install, unless `package` can be imported. Imports nothing."""
    if importlib.util.find_spec(package) is None:
        raise BackendUnavailable(f"the package {package} is not installed: pip install 'lstm-serving[{extra}]'")


def require_gpu(index: int) -> None:
    """Raises `BackendUnavailable` unless the CUDA driver is there and knows a GPU of that index."""
    try:
        driver = ctypes.CDLL("libcuda.so.1")
    except OSError as error:
        raise BackendUnavailable(
            f"cuda:{index} needs an NVIDIA driver, and libcuda.so.1 cannot be loaded ({error}): install the driver, "
            "or start the container with its GPUs (docker run --gpus all)"
        ) from error
    count = ctypes.c_int(0)
    status = driver.cuInit(0) or driver.cuDeviceGetCount(ctypes.byref(count))
    if status != 0:
        raise BackendUnavailable(
            f"cuda:{index} cannot be used: the NVIDIA driver reports error {status}; try nvidia-smi on this machine"
        )
    if index >= count.value:
        known = ", ".join(map(cuda, range(count.value))) or "none"
        raise BackendUnavailable(f"there is no cuda:{index}; the driver's devices are: {known} (CUDA_VISIBLE_DEVICES?)")
