"""What loading a version costs in each backend: time, processor, and how long nobody else could run Python.

    python benchmarks/loading.py model_repository/weather_torch/1

Each backend loads the version some times, runs it once and closes it, in a process that has done so before. Beside it a thread
wants the interpreter's lock every 0.2 ms; the longest time between two of its turns is what a request could have to wait.
"""

from __future__ import annotations

import argparse
import gc
import statistics
import sys
import threading
import time
from pathlib import Path

from serving import backends
from serving.backends.base import Options
from serving.errors import BackendUnavailable
from serving.machine import background
from serving.repository.folders import VersionFolder

LOADS = 20
WANTED_SECONDS = 0.0002
SETTLE_SECONDS = 0.05


class Other:
    """A thread that wants the lock; `longest` seconds passed between two of its turns since it was asked last."""

    def __init__(self) -> None:
        self._longest, self._over = 0.0, threading.Event()
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def longest(self) -> float:
        longest, self._longest = self._longest, 0.0
        return longest

    def end(self) -> None:
        self._over.set()
        self._thread.join()

    def _run(self) -> None:
        before = time.perf_counter()
        while not self._over.is_set():
            time.sleep(WANTED_SECONDS)
            now = time.perf_counter()
            self._longest = max(self._longest, now - before)
            before = now


def main() -> int:
    parser = argparse.ArgumentParser(description="What loading a version costs in each backend.")
    parser.add_argument("version", type=Path, metavar="MODEL/N", help="folder of one version")
    version = VersionFolder(1, parser.parse_args().version)
    print("medians of a load and its first run, in ms")
    print(f"{'backend':16}{'load':>8}{'first run':>12}{'processor':>12}{'lock held':>12}")
    for name in version.formats():
        try:
            backends.module(name).available("cpu")
        except BackendUnavailable as error:
            print(f"{name:16}{error}")
            continue
        load, run, processor, held = measured(version, name)
        print(f"{name:16}{load:8.1f}{run:12.1f}{processor:12.1f}{held:12.1f}")
    return 0


def measured(version: VersionFolder, name: str) -> list[float]:
    """Milliseconds: to load, to run first, of processors for both, and the longest that the lock was held."""
    once(version, name)  # brings in the runtime
    gc.collect()
    gc.disable()
    other = Other()
    found = []
    for _ in range(LOADS):
        time.sleep(SETTLE_SECONDS)
        other.longest()
        found.append([*once(version, name), other.longest()])
    other.end()
    gc.enable()
    return [1e3 * statistics.median(column) for column in zip(*found, strict=True)]


def once(version: VersionFolder, name: str) -> tuple[float, float, float]:
    """Seconds: to load, to run first, of processors for both."""
    spec = version.spec()
    sample, outputs = version.samples()[0], [tensor.name for tensor in spec.advertised_outputs]
    begin, computed = time.perf_counter(), time.process_time()
    backend = backends.module(name).load(version.artifact(name), spec, "cpu", Options())
    loaded = time.perf_counter()
    backend.run(sample.inputs, outputs)
    times = loaded - begin, time.perf_counter() - loaded, time.process_time() - computed
    backend.close()
    return times


if __name__ == "__main__":
    sys.setswitchinterval(background.TURN_SECONDS)  # as it is while a server loads
    sys.exit(main())
