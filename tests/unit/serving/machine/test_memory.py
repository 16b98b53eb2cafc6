"""What a model has left behind goes back to the system."""

from __future__ import annotations

import os
import resource
import weakref
from pathlib import Path

from serving.machine import memory


class Node:
    """Part of a circle, which counting references alone never frees."""

    other: Node


def test_what_nobody_can_reach_is_collected() -> None:
    first, second = Node(), Node()
    first.other, second.other = second, first
    left = weakref.ref(first)
    del first, second
    memory.give_back()
    memory.give_back()  # as often as anybody likes
    assert left() is None


def test_what_is_free_is_what_the_system_and_the_container_have(tmp_path: Path) -> None:
    proc, cgroup = tmp_path / "proc", tmp_path / "cgroup"
    assert memory.available_bytes(proc, cgroup) == 0
    proc.mkdir()
    cgroup.mkdir()
    (proc / "meminfo").write_text("MemTotal:  4000 kB\nMemAvailable:   1000 kB\n")
    assert memory.available_bytes(proc, cgroup) == 1_024_000
    (cgroup / "memory.max").write_text("max\n")
    assert memory.available_bytes(proc, cgroup) == 1_024_000
    (cgroup / "memory.max").write_text("500000\n")
    (cgroup / "memory.current").write_text("400000\n")
    (cgroup / "memory.stat").write_text("anon 300000\ninactive_file 100000\n")
    assert memory.available_bytes(proc, cgroup) == 200_000


def test_what_a_process_has_of_its_own(tmp_path: Path) -> None:
    (tmp_path / "7").mkdir()
    (tmp_path / "7" / "statm").write_text("900 50 20 1 0 30 0\n")
    assert memory.resident_bytes(7, tmp_path) == 30 * resource.getpagesize()
    assert memory.resident_bytes(8, tmp_path) == 0
    assert memory.resident_bytes(os.getpid()) > 1_000_000


def test_who_was_killed_for_want_of_memory_is_counted(tmp_path: Path) -> None:
    assert memory.killed(tmp_path, tmp_path) == 0
    (tmp_path / "vmstat").write_text("pgfault 17\noom_kill 2\n")
    (tmp_path / "memory.events").write_text("oom 3\noom_kill 1\n")
    assert memory.killed(tmp_path, tmp_path) == 3


def test_who_goes_first_is_written_where_it_can_be(tmp_path: Path) -> None:
    (tmp_path / "7").mkdir()
    memory.first_to_go(7, tmp_path)
    assert (tmp_path / "7" / "oom_score_adj").read_text() == "1000"
    memory.first_to_go(8, tmp_path)
