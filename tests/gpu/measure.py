"""Latency of every backend on the CPU and on the GPU of this machine, in one run, as a Markdown table.

    python -m tests.gpu.measure

Medians of calls of `Backend.run` in process, two layers of 64 and of 512 units, 24 steps of 8 features; every pair of
backend and device takes its turn in every round, so that what disturbs the machine disturbs all of them.
"""

from __future__ import annotations

import platform
import statistics
import tempfile
import time
from pathlib import Path

from models.config import LSTMConfig
from serving import backends
from serving.backends.base import Options
from serving.errors import BackendUnavailable
from tests.support import artefacts

ROWS = (1, 8, 32, 64, 256)
STEPS = 24
ROUNDS, CALLS = 7, 30


def main() -> None:
    for hidden in (64, 512):
        config = LSTMConfig(input="features", features=8, layers=2, hidden=hidden, head="values", outputs=1)
        measured = measure(config)
        print(
            f"\nTwo layers of {hidden}, {STEPS} steps of 8 features; milliseconds, medians of {ROUNDS * CALLS} calls:\n"
        )
        print("| backend | device | " + " | ".join(f"{rows} rows" for rows in ROWS) + " |")
        print("|---|---|" + "---|" * len(ROWS))
        for (name, device), medians in measured.items():
            print(f"| {name} | {device} | " + " | ".join(f"{1000 * seconds:.3f}" for seconds in medians) + " |")
    print()
    for line in versions():
        print(line)


def measure(config: LSTMConfig) -> dict[tuple[str, str], list[float]]:
    """Median seconds of a call, for each backend and device that is here, in the order of `ROWS`."""
    weights = artefacts.weights(config)
    spec = artefacts.spec(config, weights)
    with tempfile.TemporaryDirectory() as folder:
        loaded = {}
        for name in backends.PREFERENCE:
            for device in ("cpu", "cuda:0"):
                try:
                    backends.module(name).available(device)
                except BackendUnavailable as error:
                    print(f"not measured: {name} on {device}: {error}")
                    continue
                path = Path(folder) / backends.module(name).FILE_NAME
                if not path.exists():
                    artefacts.make(name, config, weights, Path(folder))
                loaded[name, device] = backends.module(name).load(path, spec, device, Options())
        seconds: dict[tuple[str, str], list[float]] = {pair: [] for pair in loaded}
        for rows in ROWS:
            inputs = artefacts.batch(config, rows, STEPS, full=True)
            taken: dict[tuple[str, str], list[float]] = {pair: [] for pair in loaded}
            for turn in range(ROUNDS + 1):  # the first warms up
                for pair, backend in loaded.items():
                    for _ in range(CALLS):
                        began = time.perf_counter()
                        backend.run(inputs, ("y",))
                        if turn:
                            taken[pair].append(time.perf_counter() - began)
            for pair, times in taken.items():
                seconds[pair].append(statistics.median(times))
        for backend in loaded.values():
            backend.close()
    return seconds


def versions() -> list[str]:
    """What was measured with: packages and the GPU."""
    import importlib.metadata

    names = ("torch", "onnxruntime", "onnxruntime-gpu", "tensorflow", "tensorflow-cpu", "numpy")
    lines = [f"Python {platform.python_version()}"]
    for name in names:
        try:
            lines.append(f"{name} {importlib.metadata.version(name)}")
        except importlib.metadata.PackageNotFoundError:
            lines.append(f"{name} not installed")
    import torch

    if torch.cuda.is_available():
        lines.append(
            f"{torch.cuda.get_device_name(0)}, CUDA {torch.version.cuda}, cuDNN {torch.backends.cudnn.version()}"
        )
    return lines


if __name__ == "__main__":
    main()
