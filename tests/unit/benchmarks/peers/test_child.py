from __future__ import annotations

import sys
from pathlib import Path

import pytest

from benchmarks.peers import child
from benchmarks.peers.errors import PeerError
from loadtest.endpoint import Endpoint
from tests.support.running import until

ENDS = "import sys; sys.exit('no such file')"
LEAVES_A_CHILD = """
import pathlib, subprocess, sys
pathlib.Path("pid").write_text(str(subprocess.Popen(["sleep", "600"]).pid))
sys.exit(3)
"""


def start(program: str, folder: Path) -> None:
    """Waits for a server that never answers. Raises `PeerError`."""
    (port,) = child.free_ports(1)
    with child.running([sys.executable, "-c", program], Endpoint(f"127.0.0.1:{port}"), "fake", folder):
        raise AssertionError("it was never ready")


def runs(pid: int) -> bool:
    stat = Path(f"/proc/{pid}/stat")
    return stat.exists() and stat.read_text().rpartition(")")[2].split()[0] != "Z"


def test_a_server_that_ends_is_told_with_its_last_words(tmp_path: Path) -> None:
    with pytest.raises(PeerError, match=r"(?s)exit code 1.*no such file"):
        start(ENDS, tmp_path)


def test_what_a_server_has_started_does_not_outlive_it(tmp_path: Path) -> None:
    with pytest.raises(PeerError, match="exit code 3"):
        start(LEAVES_A_CHILD, tmp_path)
    left = int((tmp_path / "pid").read_text())
    until(lambda: not runs(left))


def test_ports_are_free_and_different() -> None:
    assert len(set(child.free_ports(5))) == 5
