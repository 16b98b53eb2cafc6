"""What the watch over rows of files of others costs: p50, p99 and CPU time without it, as it is by default, and at most.

    python benchmarks/row_watch.py

An LSTM of two layers of 64 is written by torch's own exporter and served as a bare file, so that its rows are watched. Each round
serves it with each `--row-watch` in turn, in an order that changes, in a closed loop of 32 and in an open loop at a fixed
rate. The table has the medians of all rounds, and of the ratios to the round's own figure without the watch; that is measured
twice, and what the two differ by is the machine's mood.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
import warnings
from pathlib import Path

from two_checkouts import cpu_seconds, in_flight, load

from serving.launch import LaunchedServer

SHARES = {"none": "0", "none, once more": "0", "1 % (default)": "0.01", "all": "1"}
LOADS = {"32 in flight": in_flight(32), "open loop": ["--rate", "{rate}"]}
MODEL = "lstm"
FIGURES = ("p50 ms", "p99 ms", "CPU us a request")


def write(repository: Path) -> None:
    """`lstm/1/model.onnx`: `x` `[rows, steps, 8]` to `y` `[rows, 9]`."""
    import torch

    class Network(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.lstm = torch.nn.LSTM(8, 64, 2, batch_first=True)
            self.head = torch.nn.Linear(64, 9)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.head(self.lstm(x)[0][:, -1])  # type: ignore[no-any-return]

    folder = repository / MODEL / "1"
    folder.mkdir(parents=True)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            Network().eval(),
            (torch.zeros(2, 9, 8),),
            str(folder / "model.onnx"),
            input_names=["x"],
            output_names=["y"],
            dynamic_axes={"x": [0, 1], "y": [0]},
            dynamo=False,
        )


def measure(repository: Path, share: str, options: argparse.Namespace) -> dict[str, list[float]]:
    """The figures of each load for one server."""
    found = {}
    with LaunchedServer(repository, "--backend", "onnx_runtime", "--row-watch", share) as server:
        load(server.address, MODEL, in_flight(8), 0.5)
        for name, how in LOADS.items():
            before = cpu_seconds(server.process.pid)
            answered, latency = load(
                server.address, MODEL, [word.format(rate=options.rate) for word in how], options.seconds
            )
            cpu = (cpu_seconds(server.process.pid) - before) / answered * 1e6
            found[name] = [latency["p50"] * 1e3, latency["p99"] * 1e3, cpu]
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--seconds", type=float, default=3.0, help="of each load")
    parser.add_argument("--rate", type=int, default=800, help="requests a second of the open loop")
    options = parser.parse_args()
    rounds: list[dict[str, dict[str, list[float]]]] = []
    with tempfile.TemporaryDirectory() as folder:
        write(Path(folder))
        for number in range(options.rounds):
            names = list(SHARES)
            order = names[number % len(names) :] + names[: number % len(names)]
            rounds.append({name: measure(Path(folder), SHARES[name], options) for name in order})
            print(number + 1, rounds[-1], file=sys.stderr)
    print(f"medians of {options.rounds} rounds, and of the ratios to no watch in the same round\n")
    print("| load | figure | " + " | ".join(SHARES) + " |")
    print("|---|---|" + "---|" * len(SHARES))
    for name in LOADS:
        for place, figure in enumerate(FIGURES):
            cells = []
            for watched in SHARES:
                values = [each[watched][name][place] for each in rounds]
                ratio = statistics.median(
                    value / each["none"][name][place] for value, each in zip(values, rounds, strict=True)
                )
                cells.append(f"{statistics.median(values):.3g} ({ratio:.2f})")
            print(f"| {name} | {figure} | {' | '.join(cells)} |")


if __name__ == "__main__":
    main()
