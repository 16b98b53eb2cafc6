"""What was done to a server, how often, and what came, as a table of docs/track-record.md."""

from __future__ import annotations

import datetime
import importlib.metadata
import os
import platform
import sqlite3
import statistics
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from commands.version import VERSION
from tests.support.chaos_clients import ACKNOWLEDGED, BY_NAME, NOT_WRITTEN, WENT_ON

MARK = "<!-- what follows is written by: make chaos -->"
NAMED = {
    NOT_WRITTEN: "steps refused, as they could not be written",
    BY_NAME: "damaged or lost sequences refused by name",
}


def render(seed: int, tallies: Mapping[str, Any], power: Sequence[Any], missing: Sequence[str]) -> str:
    """The figures; `tallies` by kind of harm, `power` of the losses of power, `missing` what could not be done here."""
    rounds = sum(tally.rounds for tally in tallies.values())
    done = sum((tally.done for tally in tallies.values()), Counter[str]())
    came = sum((tally.came for tally in tallies.values()), Counter[str]())
    starting = [seconds for tally in tallies.values() for seconds in tally.starting]
    lines = [
        f"Written on {datetime.datetime.now(datetime.UTC):%Y-%m-%d}: {rounds} rounds with seed {seed}, {done['kill -9']} times "
        f"kill -9, {came[ACKNOWLEDGED]:,} steps answered while it was done. **No answered step was lost, none was counted "
        "twice, no answer differed by a bit** from the uninterrupted run. A server was ready after "
        f"{statistics.median(starting):.1f} s (the median of {len(starting)} starts; {max(starting):.1f} s at most).",
        "",
        "| what was done | rounds | in them | steps answered meanwhile | sequences that went on in the next server | and |",
        "|---|---|---|---|---|---|",
    ]
    for kind, tally in sorted(tallies.items(), key=lambda each: -each[1].rounds):
        others = [
            f"{count} x {what}" for what, count in tally.came.most_common() if what.startswith(("start", "served"))
        ]
        others += [f"{tally.came[what]:,} {words}" for what, words in NAMED.items() if tally.came[what]]
        cells = (
            kind,
            tally.rounds,
            ", ".join(f"{count} x {what}" for what, count in tally.done.most_common()),
            f"{tally.came[ACKNOWLEDGED]:,}",
            f"{tally.came[WENT_ON]:,}",
            "; ".join(others) or "nothing",
        )
        lines.append("| " + " | ".join(map(str, cells)) + " |")
    lines.append("")
    if power:
        lines += [
            "Loss of power, at moments by chance:",
            "",
            "| `--sequence-durability` | moments | answered steps that were looked for | not there | moments with such |",
            "|---|---|---|---|---|",
        ]
        for found in power:
            cells = (
                f"`{found.durability}`",
                found.moments,
                f"{found.looked_for:,}",
                f"{found.lost:,}",
                found.moments_with_loss,
            )
            lines.append("| " + " | ".join(map(str, cells)) + " |")
        lines.append("")
    versions = ", ".join(f"{name} {importlib.metadata.version(name)}" for name in ("onnxruntime", "numpy", "grpcio"))
    lines += [
        f"lstm-serving {VERSION}, ONNX Runtime as the backend; Python {platform.python_version()}, SQLite "
        f"{sqlite3.sqlite_version}, {versions}. {platform.system()} {platform.release().split('-')[0]}, {os.cpu_count()} "
        f"cores of {_processor()}, shared with others.",
    ]
    if not power:
        missing = [*missing, "loss of power"]
    if missing:
        lines += ["", f"Not done, as this machine does not let it be done: {', '.join(missing)}."]
    return "\n".join(lines)


def replace(page: Path, figures: str) -> None:
    """Puts the figures behind the mark of the page. Raises `SystemExit` where there is none."""
    prose, mark, _ = page.read_text(encoding="utf-8").partition(MARK)
    if not mark:
        raise SystemExit(f"{page} has no line {MARK!r}, behind which the figures go")
    page.write_text(f"{prose}{mark}\n\n{figures}\n", encoding="utf-8")


def _processor() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()
