"""How soon a server that chooses its backends is ready, beside one that is told to use ONNX Runtime.

    python benchmarks/start.py --repository model_repository --report docs/start.md

Each start is a process of its own, with default flags but for --backend, timed from its creation to the log line that says
it is ready: every model loaded, verified and warmed up. The kinds of start take turns, so that what else the machine does
meets all of them: ONNX Runtime named; `auto` of which nothing is known; `auto` that knows what was measured. For the last
one a server is left alone first, until it has measured every model. The figures replace what stands behind the mark in the
report. `make bench-start` runs it; it takes a minute or two.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import os
import platform
import shutil
import statistics
import sys
import tempfile
import time
from pathlib import Path

from serving.launch import LaunchedServer

STARTS = 5
TIMES, PLUS_SECONDS = 1.3, 0.2  # that a start with auto may take, of one with ONNX Runtime
PATIENCE_SECONDS = 600.0  # until everything is measured
MARK = "<!-- what follows is written by: make bench-start -->"
NAMED, UNKNOWN, KNOWN = "`--backend onnx_runtime`", "default flags, nothing known", "default flags, measured before"


def main() -> int:
    parser = argparse.ArgumentParser(description="How soon a server is ready that chooses its backends.")
    parser.add_argument("--repository", type=Path, required=True, help="its models are started, all of them")
    parser.add_argument("--report", type=Path, required=True, help="the page whose figures are replaced")
    asked = parser.parse_args()
    prose, mark, _ = asked.report.read_text(encoding="utf-8").partition(MARK)
    if not mark:
        parser.error(f"{asked.report} has no line {MARK!r}")
    with tempfile.TemporaryDirectory() as folder:
        unknown, known = (copied(asked.repository, Path(folder) / name) for name in ("unknown", "known"))
        measured_seconds, chosen = measure(known)
        kinds = {
            NAMED: (unknown, ("--backend", "onnx_runtime")),
            UNKNOWN: (unknown, ("--auto-cache", "off")),
            KNOWN: (known, ("--auto-cache", "off")),
        }
        taken: dict[str, list[float]] = {kind: [] for kind in kinds}
        for number in range(STARTS):
            for kind, (repository, flags) in kinds.items():
                taken[kind].append(start(repository, *flags))
                say(f"start {number + 1} of {STARTS}, {kind}: {taken[kind][-1]:.2f} s")
    figures = render(len(list(models(asked.repository))), taken, measured_seconds, chosen)
    asked.report.write_text(f"{prose}{mark}\n\n{figures}", encoding="utf-8")
    print(figures, end="")
    return 0


def models(repository: Path) -> list[Path]:
    """The folders of the models."""
    return [folder for folder in sorted(repository.iterdir()) if folder.is_dir() and not folder.name.startswith(".")]


def copied(repository: Path, to: Path) -> Path:
    """A copy of the models of which nothing is known."""
    for folder in models(repository):
        shutil.copytree(folder, to / folder.name, ignore=shutil.ignore_patterns(".*"))
    return to


def start(repository: Path, *flags: str) -> float:
    """Seconds to ready."""
    began = time.monotonic()
    with LaunchedServer(repository, *flags) as server:
        server.wait_for("ready", 0.0)
        return time.monotonic() - began


def measure(repository: Path) -> tuple[float, list[str]]:
    """Leaves a server alone until it has measured everything: seconds from ready, and what it has chosen for each model."""
    say("leaving a server alone until it has measured every model")
    expected = len(models(repository))
    with LaunchedServer(repository, "--auto-cache", "off") as server:
        began = time.monotonic()
        while len(done := [one for one in server.log() if one["message"] == "measured"]) < expected:
            if time.monotonic() > began + PATIENCE_SECONDS:
                raise RuntimeError(f"{len(done)} of {expected} models were measured within {PATIENCE_SECONDS:g} s")
            time.sleep(0.1)
        return time.monotonic() - began, [f"{one['model']} {one['chosen']}" for one in done]


def render(count: int, taken: dict[str, list[float]], measured_seconds: float, chosen: list[str]) -> str:
    """The figures as Markdown."""
    named = statistics.median(taken[NAMED])
    limit = TIMES * named + PLUS_SECONDS
    version = importlib.metadata.version
    packages = ", ".join(f"{name} {version(name)}" for name in ("onnxruntime", "torch", "tensorflow-cpu"))
    lines = [
        f"{packages}; Python {platform.python_version()}; {os.cpu_count()} cores ({platform.machine()}), shared. {count} models,",
        f"{STARTS} starts of each kind in turn, seconds to ready.",
        "",
        "| start | median | each | of the first line | |",
        "|---|---|---|---|---|",
    ]
    for kind, seconds in taken.items():
        median = statistics.median(seconds)
        kept = "kept" if median <= limit else "**missed**"
        told = "" if kind == NAMED else kept
        each = ", ".join(f"{one:.2f}" for one in seconds)
        lines.append(f"| {kind} | {median:.2f} | {each} | {median / named:.2f} | {told} |")
    lines += [
        "",
        f"Promised is {TIMES:g} times the first line and {PLUS_SECONDS:g} s: {limit:.2f} s. Left alone, a server had measured",
        f"all of them {measured_seconds:.0f} s after it was ready: {', '.join(chosen)}.",
        "",
    ]
    return "\n".join(lines)


def say(text: str) -> None:
    """Progress, on standard error."""
    print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
