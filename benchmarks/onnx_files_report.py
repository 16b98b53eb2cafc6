"""The figures of `onnx_files.py` as Markdown, and a verdict on each thing that our files are to keep.

The older exporter of torch writes its constants as nodes, which a runtime folds away when it loads the file; so nodes
are counted with and without them, and the verdict takes the count that is harder for us.
"""

from __future__ import annotations

import collections
import dataclasses
import importlib.metadata
import os
import platform
import re
import textwrap
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import reference

from export.writers.onnx_graph import IR_VERSION, OPSET
from models.config import LSTMConfig

OURS, BARE = "ours", "ours, cut down"
WHOLE = ", `lengths` and state"
LESS = ", less what `lengths` and state need"
MARKER = "<!-- what follows is written by: make compare-onnx -->"
MOST_OF_TIME = 1.05
NODES_A_LAYER, NODES_AROUND = 4, 12  # one of the four is the LSTM itself
PACKAGES = ("onnxruntime", "onnx", "torch", "onnxscript", "keras", "tensorflow-cpu", "tf2onnx")


@dataclasses.dataclass(frozen=True)
class File:
    """One file: its nodes by operator, its size, and the seconds of a call by the number of rows."""

    operators: Counter[str]
    size_bytes: int
    opset: int
    ir_version: int
    seconds: Mapping[int, float]

    @property
    def nodes(self) -> int:
        """All nodes but constants."""
        return self.operators.total() - self.operators["Constant"]


@dataclasses.dataclass(frozen=True)
class Compared:
    """One network: the files by writer, and what those said who wrote none."""

    name: str
    config: LSTMConfig
    files: Mapping[str, File]
    failures: Mapping[str, str]

    @property
    def others(self) -> Mapping[str, File]:
        """The files that take `x` and give `y`, of other writers."""
        return {writer: f for writer, f in self.files.items() if writer not in (OURS, BARE) and WHOLE not in writer}

    def ratio(self, writer: str, rows: int) -> float:
        """The time of a file by that of the fastest other."""
        return self.files[writer].seconds[rows] / min(file.seconds[rows] for file in self.others.values())

    @property
    def extras(self) -> Counter[str]:
        """The nodes that `lengths` and state need."""
        return self.files[OURS].operators - self.files[BARE].operators


def write(path: Path, measured: Sequence[Compared]) -> None:
    """Replaces what stands behind the marker in the file."""
    before, marker, _ = path.read_text(encoding="utf-8").partition(MARKER)
    if not marker:
        raise SystemExit(f"{path} has no line {MARKER!r}")
    lines = [*about(), *verdicts(measured)]
    for compared in measured:
        lines += table(compared)
    path.write_text("\n".join([before + marker, "", *lines]).rstrip() + "\n", encoding="utf-8")


def about() -> list[str]:
    """On what was measured."""
    versions = ", ".join(f"{package} {version}" for package in PACKAGES if (version := installed(package)))
    return paragraph(
        f"{versions}; Python {platform.python_version()}; {os.cpu_count()} shared cores ({platform.machine()}). ONNX "
        f"Runtime on one thread, full rows of {reference.STEPS} steps, `y` asked for; medians of one run with the files in "
        f"turn."
    )


def verdicts(measured: Sequence[Compared]) -> list[str]:
    """What is kept and what is missed, one line a promise."""
    lines = ["| promise | | missed at |", "|---|---|---|"]
    for promise, misses in promises(measured).items():
        lines.append(f"| {promise} | {'**missed**' if misses else 'kept'} | {', '.join(misses)} |")
    return [*lines, ""]


def promises(measured: Sequence[Compared]) -> Mapping[str, list[str]]:
    """Where each promise is missed."""
    found: dict[str, list[str]] = collections.defaultdict(list)

    def promise(text: str, where: str, kept: bool) -> None:
        found[text] += [] if kept else [where]

    for one in measured:
        ours, bare, layers = one.files[OURS], one.files[BARE], one.config.layers
        most = NODES_A_LAYER * layers + NODES_AROUND
        promise(f"opset {OPSET}, IR {IR_VERSION}", one.name, (ours.opset, ours.ir_version) == (OPSET, IR_VERSION))
        promise("one LSTM node a layer", one.name, ours.operators["LSTM"] == layers)
        promise(
            "at most three nodes more a layer and a dozen around them",
            f"{one.name} ({ours.nodes} nodes, {most} allowed)",
            ours.nodes <= most,
        )
        for kind, of in (("nodes", lambda file: file.nodes), ("bytes", lambda file: file.size_bytes)):
            least = min(map(of, one.others.values()))
            for less, file in (("", ours), (LESS, bare)):
                text = f"no more {kind} than the smallest other{less}"
                promise(text, f"{one.name} ({of(file):,} to {least:,})", of(file) <= least)
        for rows in ours.seconds:
            for writer, less in ((OURS, ""), (BARE, LESS)):
                ratio = one.ratio(writer, rows)
                text = f"at most {MOST_OF_TIME} of the fastest other's time{less}"
                promise(text, f"{one.name}, rows {rows} ({ratio:.2f})", ratio <= MOST_OF_TIME)
    return found


def table(one: Compared) -> list[str]:
    """The files of one network; times in microseconds, beside each its ratio to the fastest other's."""
    rows, config = list(one.files[OURS].seconds), one.config
    tokens = f"tokens of {config.vocabulary} ids, embedded in {config.embedding} dimensions"
    read = tokens if config.input == "tokens" else f"{config.features} features"
    lines = [
        f"### {one.name[0].upper()}{one.name[1:]}",
        "",
        *paragraph(f"{one.config.told()}; {read}."),
        f"| written by | nodes | and constants | bytes | opset, IR | {' | '.join(f'rows {n}, us' for n in rows)} |",
        f"|---|---|---|---|---|{'---|' * len(rows)}",
    ]
    for writer, file in one.files.items():
        times = [f"{file.seconds[n] * 1e6:.0f} ({one.ratio(writer, n):.2f})" for n in rows]
        cells = [
            writer,
            file.nodes,
            file.operators["Constant"],
            f"{file.size_bytes:,}",
            f"{file.opset}, {file.ir_version}",
        ]
        lines.append(f"| {' | '.join(map(str, [*cells, *times]))} |")
    said = [f"{writer}: {counted(file.operators)}." for writer, file in one.files.items() if WHOLE not in writer]
    extras = one.files[OURS].size_bytes - one.files[BARE].size_bytes
    needed = f"`lengths` and state need {one.extras.total()} of our nodes and {extras:,} bytes: {counted(one.extras)}."
    lines += ["", *paragraph(needed), *(line for text in said for line in bullet(text)), ""]
    for writer, error in one.failures.items():
        lines += paragraph(f"{writer}: not written. {error}")
    return lines


def counted(operators: Counter[str]) -> str:
    """`LSTM 2, Transpose 3`, constants left out."""
    return ", ".join(f"{operator} {count}" for operator, count in sorted(operators.items()) if operator != "Constant")


def plain(message: str) -> str:
    """What an exporter says of its failure, in one line: the summary that torch puts at the end, or the first line."""
    text = re.sub(r"\x1b\[\d+m", "", message).strip()
    summary = text.partition("## Exception summary")[2].strip() or text
    return " ".join(summary.split("\n\n")[0].split())[:300]


def paragraph(text: str) -> list[str]:
    return [*textwrap.wrap(text, 120, break_long_words=False, break_on_hyphens=False), ""]


def bullet(text: str) -> Iterator[str]:
    wrapped = textwrap.wrap(text, 118, break_long_words=False, break_on_hyphens=False)
    yield from (("- " if number == 0 else "  ") + line for number, line in enumerate(wrapped))


def installed(package: str) -> str:
    """The version of a package, or nothing."""
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return ""
