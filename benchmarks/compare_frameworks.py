"""One network trained in PyTorch and in Keras, from the same weights on the same batches; writes docs/frameworks.md.

    python benchmarks/compare_frameworks.py --report docs/frameworks.md

`make compare-frameworks` runs it: Japanese Vowels without dropout and noise, the epochs of the frameworks in turn. Time to
the first prediction and memory are those of a process that does nothing else.

What trained a network does not matter to a server; the format does. So each format is timed once, on the weights that
PyTorch learnt.
"""

from __future__ import annotations

import argparse
import dataclasses
import functools
import importlib.metadata
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import textwrap
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import equal_training
import numpy as np

from export import formats
from export.publish import publish
from models import networks, problems, scoring
from models.checkpoint import Checkpoint
from models.examples import batches, scaling
from serving import backends
from serving.backends.base import Options
from serving.signature import spec

MARKER = "<!-- what follows is written by: make compare-frameworks -->"
EPOCHS, ROWS, STEPS, ROUNDS, STARTS = 15, (1, 8, 64), 24, 31, 3
BLOCK_SECONDS = 0.02
NAMES = {"torch": "PyTorch", "keras": "Keras"}
PACKAGES = {"torch": "torch", "keras": "keras", "tensorflow-cpu": "TensorFlow", "onnxruntime": "ONNX Runtime"}


@dataclasses.dataclass
class Training:
    """One framework's way: the loss of every step, the seconds of every epoch, what was learnt, the test accuracy."""

    losses: list[float]
    seconds: list[float]
    checkpoint: Checkpoint | None = None
    accuracy: float = 0.0


def main() -> int:
    parser = argparse.ArgumentParser(description="Trains one network in both frameworks and compares.")
    parser.add_argument("--report", type=Path, help="Markdown file; what follows its marker is replaced")
    parser.add_argument("--first-prediction", nargs=2, metavar=("WITH", "FOLDER"), help="used by the comparison itself")
    asked = parser.parse_args()
    os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")  # before anything imports ONNX Runtime
    networks.silence_tensorflow()
    if asked.first_prediction:
        loader, folder = asked.first_prediction
        predict_once(loader, Path(folder))
        return 0
    if not asked.report:
        parser.error("--report is needed")
    trained = train()
    with tempfile.TemporaryDirectory() as folder:
        write(asked.report, trained, exports(trained, Path(folder)), first_predictions(trained, Path(folder)))
    return 0


def train() -> dict[str, Training]:
    """Both frameworks, an epoch of each in turn, on batches from random numbers of the same seed."""
    import torch

    torch.set_num_threads(1)
    problem = problems.vowels()
    config, plan = dataclasses.replace(problem.config, dropout=0.0), problem.plan
    scales = scaling(config, problem.training)
    trainers = {name: equal_training.start(name, config, scales, plan) for name in networks.FRAMEWORKS}
    randoms = {name: np.random.default_rng(plan.seed) for name in trainers}
    ways = {name: Training([], []) for name in trainers}
    for _ in range(EPOCHS):
        for name, trainer in trainers.items():
            seen = list(batches(problem.training, plan.rows, randoms[name]))
            begin = time.perf_counter()
            ways[name].losses += [trainer.step(batch) for batch in seen]
            ways[name].seconds.append(time.perf_counter() - begin)
    for name, way in ways.items():
        network = networks.build(name, config)
        network.load_canonical(trainers[name].network.canonical_weights())
        way.accuracy = float(scoring.accuracy(scoring.answers(network, problem.test), scoring.truth(problem.test)))
        way.checkpoint = Checkpoint(
            config=config, weights=network.canonical_weights(), framework=name, training={"epochs": EPOCHS}
        )
    return ways


@dataclasses.dataclass(frozen=True)
class Export:
    """One format: its size in bytes and the seconds of a call by the number of rows, in its backend on one thread."""

    size_bytes: int
    seconds: dict[int, float]


def exports(trained: dict[str, Training], folder: Path) -> dict[str, Export]:
    """Every format of the network that PyTorch trained; leaves them, and both checkpoints, in `folder`."""
    for name, way in trained.items():
        way.checkpoint.save(folder / name)
    version = publish(trained["torch"].checkpoint, chosen=formats.names(), repository=folder, name="exports")
    loaded = {form: open_export(formats.writer(form).BACKEND, version.path) for form in formats.names()}
    seconds: dict[str, dict[int, float]] = {form: {} for form in loaded}
    for rows in ROWS:
        rounds: dict[str, list[float]] = {form: [] for form in loaded}
        fed = inputs(trained["torch"].checkpoint, rows)
        calls = {form: functools.partial(backend.run, fed, ("y",)) for form, backend in loaded.items()}
        for _ in range(ROUNDS):
            for form, call in calls.items():
                rounds[form].append(block(call))
        for form, times in rounds.items():
            seconds[form][rows] = statistics.median(times)
    return {written.format: Export(written.size_bytes, seconds[written.format]) for written in version.written}


def first_predictions(trained: dict[str, Training], folder: Path) -> dict[str, tuple[float, float]]:
    """By framework or format: seconds from the start of a process to its first prediction, and its resident MB then."""
    loaders = {name: folder / name for name in trained}
    loaders |= dict.fromkeys(formats.names(), folder / "exports" / "1")
    found: dict[str, list[tuple[float, float]]] = {loader: [] for loader in loaders}
    for _ in range(STARTS):
        for loader, path in loaders.items():
            begin = time.perf_counter()
            with subprocess.Popen(
                [sys.executable, __file__, "--first-prediction", loader, path], stdout=subprocess.PIPE, text=True
            ) as process:
                memory = process.stdout.readline()
                seconds = time.perf_counter() - begin
            found[loader].append((seconds, float(memory)))
    return {loader: tuple(map(statistics.median, zip(*starts, strict=True))) for loader, starts in found.items()}


def predict_once(loader: str, folder: Path) -> None:
    """Loads a checkpoint or an export, asks it once and prints the resident MB (10^6 bytes) of this process."""
    if loader in NAMES:
        checkpoint = Checkpoint.load(folder)
        networks.load(checkpoint).predict(inputs(checkpoint, 1))
    else:
        fed = inputs(Checkpoint.load(folder.parent.parent / "torch"), 1)
        open_export(formats_backend(loader), folder).run(fed, ("y",))
    status = Path("/proc/self/status").read_text()
    print(int(status.partition("VmRSS:")[2].split()[0]) * 1024 / 1e6, flush=True)


def formats_backend(form: str) -> str:
    """The backend that reads a format; the writer, which knows it too, would import the framework."""
    return {"onnx": "onnx_runtime", "torchscript": "torchscript", "savedmodel": "saved_model"}[form]


def open_export(backend: str, version: Path) -> Any:
    module = backends.module(backend)
    return module.load(version / module.FILE_NAME, spec.ModelSpec.read(version / spec.FILE_NAME), "cpu", Options())


def inputs(checkpoint: Checkpoint, rows: int) -> dict[str, np.ndarray]:
    """Full rows from a zero state."""
    config = checkpoint.config
    x = np.random.default_rng(rows).normal(size=(rows, STEPS, config.features)).astype(np.float32)
    state = np.zeros((rows, config.layers * config.directions, config.hidden), np.float32)
    return {"x": x, "lengths": np.full(rows, STEPS, np.int64), "h0": state, "c0": state}


def block(call: Callable[[], object]) -> float:
    """The median seconds of a call within a block of them."""
    times, end = [], time.perf_counter() + BLOCK_SECONDS
    while len(times) < 3 or time.perf_counter() < end:
        begin = time.perf_counter()
        call()
        times.append(time.perf_counter() - begin)
    return statistics.median(times)


def write(
    path: Path, trained: dict[str, Training], made: dict[str, Export], first: dict[str, tuple[float, float]]
) -> None:
    """Replaces what stands behind the marker in the file, and the pictures in the folder of its name."""
    before, marker, _ = path.read_text(encoding="utf-8").partition(MARKER)
    if not marker:
        raise SystemExit(f"{path} has no line {MARKER!r}")
    pictures = path.with_suffix("")
    pictures.mkdir(exist_ok=True)
    draw_losses(trained).savefig(pictures / "losses.png")
    draw_latency(made).savefig(pictures / "latency.png")
    torch, keras = (np.array(trained[name].losses) for name in NAMES)
    apart = np.abs(torch - keras) / torch
    shares = ", ".join(f"{apart[:n].max():.1e} over the first {n}" for n in (1, 5, 20, len(apart)))
    config = trained["torch"].checkpoint.config
    versions = ", ".join(f"{told} {importlib.metadata.version(name)}" for name, told in PACKAGES.items())
    lines = [
        *paragraph(
            f"{config.told()}, {config.features} features; Japanese Vowels, {EPOCHS} epochs of "
            f"{len(torch) // EPOCHS} steps without dropout, noise and averaging. {versions}, Python "
            f"{platform.python_version()}; {os.cpu_count()} shared cores ({platform.machine()}). Medians; what is timed "
            f"is timed in turn."
        ),
        "| framework | an epoch, s | loss, last epoch | test accuracy | first prediction, s | resident, MB |",
        "|---|---|---|---|---|---|",
        *(
            f"| {told} | {statistics.median(way.seconds[1:]):.2f} | {np.mean(way.losses[-len(torch) // EPOCHS :]):.4f} | "
            f"{way.accuracy:.4f} | {first[name][0]:.2f} | {first[name][1]:.0f} |"
            for (name, told), way in zip(NAMES.items(), trained.values(), strict=True)
        ),
        "",
        *paragraph(f"The losses of one step are at most so far apart, by their size: {shares} steps."),
        "![Loss of each step in both frameworks, and how far apart they are](frameworks/losses.png)",
        "",
        f"| export | bytes | {' | '.join(f'rows {rows}, us' for rows in ROWS)} | first prediction, s | resident, MB |",
        f"|---|---|{'---|' * len(ROWS)}---|---|",
    ]
    for form, export in made.items():
        times = " | ".join(f"{export.seconds[rows] * 1e6:.0f}" for rows in ROWS)
        lines.append(f"| {form} | {export.size_bytes:,} | {times} | {first[form][0]:.2f} | {first[form][1]:.0f} |")
    lines += [
        "",
        *paragraph(f"A call is one of {STEPS} steps on one thread, within the process, `y` asked for."),
        "![Time of a call by rows, for each export in its backend](frameworks/latency.png)",
    ]
    path.write_text("\n".join([before + marker, "", *lines]) + "\n", encoding="utf-8")


def draw_losses(trained: dict[str, Training]) -> Any:
    """The loss of every step on the left, the relative difference on the right."""
    from matplotlib.figure import Figure  # not for the processes that predict once

    figure = Figure(figsize=(8, 3.2), dpi=110, layout="constrained")
    left, right = figure.subplots(1, 2)
    for (name, told), style in zip(NAMES.items(), ({"lw": 3, "alpha": 0.5}, {"lw": 1, "ls": "--"}), strict=True):
        left.plot(np.arange(1, len(trained[name].losses) + 1), trained[name].losses, label=told, **style)
    torch, keras = (np.array(trained[name].losses) for name in NAMES)
    right.plot(np.arange(1, len(torch) + 1), np.maximum(np.abs(torch - keras) / torch, 1e-9), color="C3")
    left.set(yscale="log", xlabel="step", ylabel="cross-entropy of the batch", title="loss")
    right.set(yscale="log", xlabel="step", ylabel="|PyTorch - Keras| / PyTorch", title="how far apart (from 1e-9 on)")
    left.legend()
    for axes in (left, right):
        axes.grid(alpha=0.3)
    return figure


def draw_latency(made: dict[str, Export]) -> Any:
    """Time of a call by rows, one group of bars for each number of rows."""
    from matplotlib.figure import Figure  # not for the processes that predict once

    figure = Figure(figsize=(6, 3.2), dpi=110, layout="constrained")
    axes = figure.subplots()
    places, width = np.arange(len(ROWS)), 0.8 / len(made)
    for number, (form, export) in enumerate(made.items()):
        left = places + (number - (len(made) - 1) / 2) * width
        bars = axes.bar(left, [export.seconds[rows] * 1e6 for rows in ROWS], width, label=form)
        axes.bar_label(bars, fmt="%.0f", fontsize=8)
    axes.set(yscale="log", xlabel="rows of a call", ylabel="us", xticks=places, xticklabels=ROWS)
    axes.margins(y=0.15)
    axes.legend(title="export")
    axes.grid(axis="y", alpha=0.3)
    return figure


def paragraph(text: str) -> Sequence[str]:
    return [*textwrap.wrap(text, 120, break_long_words=False, break_on_hyphens=False), ""]


if __name__ == "__main__":
    sys.exit(main())
