from __future__ import annotations

import os
import subprocess
import sys

import pytest

from benchmarks.peers.cpu import cpu_seconds, ticks


def stat(pid: int, parent: int, used: tuple[int, int, int, int], name: str = "server") -> str:
    """A line of /proc/PID/stat: `used` is utime, stime, cutime and cstime, the fields 14 to 17."""
    before = [0] * 9
    return " ".join(map(str, [pid, f"({name})", "S", parent, *before, *used, 20, 0, 1, 0]))


def test_a_process_with_its_children_and_theirs() -> None:
    stats = {
        7: stat(7, 1, (1, 2, 4, 8)),
        8: stat(8, 7, (16, 0, 0, 0)),
        9: stat(9, 8, (32, 0, 0, 0)),
        10: stat(10, 1, (64, 64, 64, 64)),  # nobody's of these
    }
    assert ticks(stats, 7) == 1 + 2 + 4 + 8 + 16 + 32
    assert ticks(stats, 8) == 16 + 32


def test_a_name_may_look_like_fields() -> None:
    assert ticks({7: stat(7, 1, (3, 4, 0, 0), name="a) S 1 2 (b")}, 7) == 7


def test_a_process_that_is_gone_is_not_an_idle_one() -> None:
    with pytest.raises(ProcessLookupError, match="no process 8"):
        ticks({7: stat(7, 1, (1, 1, 1, 1))}, 8)


def test_children_that_have_ended_count_here() -> None:
    before = cpu_seconds(os.getpid())
    subprocess.run([sys.executable, "-c", "import time\nwhile time.process_time() < 0.2: pass"], check=True)
    assert cpu_seconds(os.getpid()) - before > 0.1
