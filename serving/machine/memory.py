"""Giving memory back to the system after a model has gone, and what the system says of the memory of processes.

Freeing is not enough. glibc keeps what was freed in the arenas of the threads that had asked for it, and after many
loads a server would hold several times what it uses.

What Linux says stands in `/proc` (proc(5)) and, of a container, in `/sys/fs/cgroup` (the kernel's cgroup-v2). Elsewhere
nothing is known, and nothing is limited.
"""

from __future__ import annotations

import contextlib
import ctypes
import functools
import gc
from collections.abc import Callable
from pathlib import Path

PROC, CGROUP = Path("/proc"), Path("/sys/fs/cgroup")


def give_back() -> None:
    """Collects what is unreachable and returns free pages to the system, where the C library can (glibc)."""
    gc.collect()
    _trim()(0)


@functools.cache
def _trim() -> Callable[[int], object]:
    try:
        trim: Callable[[int], object] = ctypes.CDLL(None).malloc_trim
    except (AttributeError, OSError):  # another C library
        return lambda pad: None
    return trim


def available_bytes(proc: Path = PROC, cgroup: Path = CGROUP) -> int:
    """What can be taken before the system, or this container, has none left; 0 where nobody says."""
    free = _numbers(proc / "meminfo").get("MemAvailable:", 0) * 1024
    limit = _number(cgroup / "memory.max")
    if limit:
        kept = _number(cgroup / "memory.current") - _numbers(cgroup / "memory.stat").get("inactive_file", 0)
        free = min(free or limit, max(1, limit - kept))
    return free


def resident_bytes(pid: int, proc: Path = PROC) -> int:
    """What a process has in memory of its own: shared files left out; 0 where nobody says, and when it has ended."""
    try:
        _, resident, shared, *_ = (int(word) for word in (proc / str(pid) / "statm").read_text().split())
    except (OSError, ValueError):
        return 0
    return (resident - shared) * _page_bytes()


def killed(proc: Path = PROC, cgroup: Path = CGROUP) -> int:
    """How many processes the system has killed so far for want of memory, here or in this container."""
    return sum(_numbers(file).get("oom_kill", 0) for file in (proc / "vmstat", cgroup / "memory.events"))


def first_to_go(pid: int, proc: Path = PROC) -> None:
    """Makes a process the one that the system kills first for want of memory, where it can be told so."""
    with contextlib.suppress(OSError):  # another system, or the process has ended
        (proc / str(pid) / "oom_score_adj").write_text("1000")


def _number(file: Path) -> int:
    try:
        return int(file.read_text())
    except (OSError, ValueError):  # there is none, or it says "max"
        return 0


def _numbers(file: Path) -> dict[str, int]:
    """Of lines that are a name and a number."""
    try:
        lines = [line.split() for line in file.read_text().splitlines()]
    except OSError:
        return {}
    return {words[0]: int(words[1]) for words in lines if len(words) > 1 and words[1].isdecimal()}


@functools.cache
def _page_bytes() -> int:
    import resource

    return resource.getpagesize()
