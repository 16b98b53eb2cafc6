"""Is this checkout slower than another one? Both serve in turn, so that a shared machine's mood falls on both.

    git worktree add /tmp/before v0.1.0
    python benchmarks/two_checkouts.py --before /tmp/before --repository model_repository --model vowels_torch

Each round starts a server of either checkout, in an order that changes from round to round, and measures: seconds to ready,
the server's CPU time a request at 1 and 32 in flight, and the p99 of 8 in flight while the backend is swapped. The table has
the medians of all rounds and of the rounds' own ratios. The repository must be one that both can read.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path

from benchmarks.peers.cpu import cpu_seconds
from benchmarks.peers.load_test import LoadTest
from serving.launch import LaunchedServer

FIGURES = (
    "seconds to ready",
    "CPU us a request, 1 in flight",
    "CPU us a request, 32 in flight",
    "p99 ms while swapping",
)


def load(address: str, model: str, how: Sequence[str], seconds: float) -> tuple[int, dict[str, float]]:
    """Requests answered under the load that `how` has flags for, and their latencies in seconds."""
    run = LoadTest("--url", address, "--model", model, *how, "--warm-up", "0", seconds=seconds).result()
    assert not run["failed"], run["errors"]
    return run["succeeded"], run["latency_seconds"]


def in_flight(number: int) -> list[str]:
    """The flags of a closed loop."""
    return ["--concurrency", str(number)]


def swap(address: str, model: str, backend: str) -> None:
    """Exchanges the backend while others ask."""
    command = [sys.executable, "-m", "admin", "--url", address, "swap", model, "--backend", backend]
    subprocess.run(command, check=True, capture_output=True)


def measure(checkout: Path, python: str, options: argparse.Namespace) -> list[float]:
    """All of `FIGURES` for one start of one checkout."""
    flags = ["--backend", "onnx_runtime", "--model-control-mode", "explicit", "--load-model", options.model]
    began = time.monotonic()
    with LaunchedServer(options.repository, *flags, python=python, packages=checkout) as server:
        ready = time.monotonic() - began
        figures = [ready]
        load(server.address, options.model, in_flight(8), 0.5)
        for number in (1, 32):
            before = cpu_seconds(server.process.pid)
            answered, _ = load(server.address, options.model, in_flight(number), options.seconds)
            figures.append((cpu_seconds(server.process.pid) - before) / answered * 1e6)
    return figures


def swapping(checkout: Path, options: argparse.Namespace) -> float:
    """The p99 of 8 in flight while the backend is swapped there and back; both have been loaded once before."""
    flags = ["--backend", "onnx_runtime", "--model-control-mode", "explicit", "--load-model", options.model]
    with LaunchedServer(options.repository, *flags, packages=checkout) as server:
        for backend in ("torchscript", "onnx_runtime"):
            swap(server.address, options.model, backend)
        over = threading.Event()

        def exchange() -> None:
            while not over.is_set():
                for backend in ("torchscript", "onnx_runtime"):
                    swap(server.address, options.model, backend)

        thread = threading.Thread(target=exchange)
        thread.start()
        try:
            return load(server.address, options.model, in_flight(8), 2 * options.seconds)[1]["p99"] * 1e3
        finally:
            over.set()
            thread.join()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--before", type=Path, required=True, metavar="DIR", help="the other checkout")
    parser.add_argument(
        "--after", type=Path, default=Path(__file__).parents[1], metavar="DIR", help="default: this one"
    )
    parser.add_argument("--repository", type=Path, required=True, metavar="DIR", help="a model repository of both")
    parser.add_argument("--model", required=True, metavar="NAME")
    parser.add_argument(
        "--python", default=sys.executable, help="of an environment with the onnx extra alone, for the start"
    )
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--seconds", type=float, default=3.0, help="of each load")
    options = parser.parse_args()
    found: dict[str, list[list[float]]] = {"before": [], "after": []}
    for number in range(options.rounds):
        for name in ("before", "after") if number % 2 else ("after", "before"):
            checkout = getattr(options, name).absolute()
            figures = [*measure(checkout, options.python, options), swapping(checkout, options)]
            found[name].append(figures)
            print(number + 1, name, *(f"{figure:.4g}" for figure in figures), file=sys.stderr)
    print(f"medians of {options.rounds} rounds\n\n|  | before | after | after / before |\n|---|---|---|---|")
    for place, title in enumerate(FIGURES):
        before, after = ([figures[place] for figures in found[name]] for name in ("before", "after"))
        ratio = statistics.median(b / a for a, b in zip(before, after, strict=True))
        print(f"| {title} | {statistics.median(before):.4g} | {statistics.median(after):.4g} | {ratio:.2f} |")


if __name__ == "__main__":
    main()
