"""Latency and exactness of every backend on the CPU and on the GPU of this machine, in one run, as Markdown tables.

    python -m tests.gpu.measure

Medians of calls of `Backend.run` in process, two layers of 64 and of 512 units, 24 steps of 8 features; every pair of
backend and device takes its turn in every round, so that what disturbs the machine disturbs all of them.
"""

from __future__ import annotations

import contextlib
import platform
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from models.config import LSTMConfig
from models.inputs import OUTPUTS
from serving import backends
from serving.backends.base import Backend, Options
from serving.errors import BackendUnavailable
from serving.signature.tensors import Tensors
from tests.support import artefacts, oracle

ROWS = (1, 8, 32, 64, 256)
STEPS = 24
ROUNDS, CALLS = 7, 30
TURN_SECONDS = 0.25  # of one pair in one round: a dear call is made less often, and once at least


def main() -> None:
    for hidden in (64, 512):
        config = LSTMConfig(input="features", features=8, layers=2, hidden=hidden, head="values", outputs=1)
        measured = measure(config)
        print(
            f"\nTwo layers of {hidden}, {STEPS} steps of 8 features; "
            f"milliseconds, medians of {ROUNDS} to {ROUNDS * CALLS} calls:\n"
        )
        print("| backend | device | " + " | ".join(f"{rows} rows" for rows in ROWS) + " |")
        print("|---|---|" + "---|" * len(ROWS))
        for (name, device), medians in measured.items():
            print(f"| {name} | {device} | " + " | ".join(f"{1000 * seconds:.3f}" for seconds in medians) + " |")
    print(
        "\nLargest difference from the equations, two layers, 40 steps, for 1 to 64 full rows, and for 64 rows of all lengths:\n"
    )
    print("| backend | device | units | full rows | each row alone | in company | alone beside in company |")
    print("|---|---|---|---|---|---|---|")
    for units in (5, 64, 256):
        config = LSTMConfig(input="features", features=3, layers=2, hidden=units, outputs=4)
        for (name, device), differences in exactness(config).items():
            print(f"| {name} | {device} | {units} | " + " | ".join(f"{each:.2g}" for each in differences) + " |")
    print()
    for line in versions():
        print(line)


def measure(config: LSTMConfig) -> dict[tuple[str, str], list[float]]:
    """Median seconds of a call, for each backend and device that is here, in the order of `ROWS`."""
    with everything_loaded(config) as loaded:
        seconds: dict[tuple[str, str], list[float]] = {pair: [] for pair in loaded}
        for rows in ROWS:
            inputs = artefacts.batch(config, rows, STEPS, full=True)
            taken: dict[tuple[str, str], list[float]] = {pair: [] for pair in loaded}
            for turn in range(ROUNDS + 1):  # the first warms up
                for pair, backend in loaded.items():
                    turn_began = time.perf_counter()
                    for _ in range(CALLS):
                        began = time.perf_counter()
                        backend.run(inputs, ("y",))
                        if turn:
                            taken[pair].append(time.perf_counter() - began)
                        if time.perf_counter() - turn_began > TURN_SECONDS:
                            break
            for pair, times in taken.items():
                seconds[pair].append(statistics.median(times))
    return seconds


def exactness(config: LSTMConfig) -> dict[tuple[str, str], tuple[float, float, float, float]]:
    """The four largest differences that the table names, over `y`, `hn` and `cn`."""
    weights = artefacts.weights(config)
    full = [artefacts.batch(config, rows, 40, full=True) for rows in (1, 2, 3, 4, 8, 16, 32, 64)]
    company = artefacts.batch(config, 64, 40)
    equations = oracle.predict(config, weights, company)
    alone = [_row(company, row) for row in range(64)]
    found = {}
    with everything_loaded(config) as loaded:
        for pair, backend in loaded.items():
            answered = backend.run(company, OUTPUTS)
            each = [backend.run(row, OUTPUTS) for row in alone]
            apart = {name: np.concatenate([answer[name] for answer in each]) for name in OUTPUTS}
            found[pair] = (
                max(_apart(backend.run(rows, OUTPUTS), oracle.predict(config, weights, rows)) for rows in full),
                _apart(apart, equations),
                _apart(answered, equations),
                _apart(apart, answered),
            )
    return found


def _row(inputs: Tensors, row: int) -> Tensors:
    """One row, of its own length."""
    alone = {name: array[row : row + 1] for name, array in inputs.items()}
    return {**alone, "x": alone["x"][:, : alone["lengths"][0]]}


def _apart(some: Tensors, others: Tensors) -> float:
    return max(float(np.abs(some[name] - others[name]).max()) for name in OUTPUTS)


@contextlib.contextmanager
def everything_loaded(config: LSTMConfig) -> Iterator[dict[tuple[str, str], Backend]]:
    """The network in every backend on every device that is here; says which is not."""
    weights = artefacts.weights(config)
    spec = artefacts.spec(config, weights)
    with tempfile.TemporaryDirectory() as folder, contextlib.ExitStack() as closing:
        loaded = {}
        for name in backends.PREFERENCE:
            for device in ("cpu", "cuda:0"):
                try:
                    backends.module(name).available(device)
                except BackendUnavailable as error:
                    print(f"not measured: {name} on {device}: {error}", file=sys.stderr)
                    continue
                path = Path(folder) / backends.module(name).FILE_NAME
                if not path.exists():
                    artefacts.make(name, config, weights, Path(folder))
                loaded[name, device] = backends.module(name).load(path, spec, device, Options())
                closing.callback(loaded[name, device].close)
        yield loaded


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
