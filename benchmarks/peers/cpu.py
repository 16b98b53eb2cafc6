"""The CPU time that a server has used: its own and that of all its children, out of Linux' /proc."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Mapping
from pathlib import Path


def cpu_seconds(pid: int) -> float:
    """User and system time that a process and its children have used, those that have ended included (Linux)."""
    stats = {}
    for file in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):  # a process that has just ended
            stats[int(file.parent.name)] = file.read_text()
    return ticks(stats, pid) / os.sysconf("SC_CLK_TCK")


def ticks(stats: Mapping[int, str], pid: int) -> int:
    """The same in ticks of the clock. `stats` holds what /proc/PID/stat says, by PID.

    Raises `ProcessLookupError` for a process that is not there.
    """
    used: dict[int, int] = {}
    children: dict[int, list[int]] = {}
    for process, text in stats.items():
        fields = text.rpartition(")")[2].split()  # a name may hold blanks and brackets
        used[process] = sum(map(int, fields[11:15]))  # utime, stime, and both of children that have ended
        children.setdefault(int(fields[1]), []).append(process)
    if pid not in used:
        raise ProcessLookupError(f"no process {pid}")
    family = [pid]
    for member in family:
        family += children.get(member, [])
    return sum(used[member] for member in family)
