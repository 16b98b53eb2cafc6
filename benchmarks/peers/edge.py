"""Our edge answering constants (`edge_server.py`): what it costs before anybody serves a model, beside gRPC's own."""

from __future__ import annotations

import contextlib
import os
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from benchmarks.peers import child
from benchmarks.peers.server import EDGE, MODEL, Server

ROOT = Path(__file__).parents[2]


@contextlib.contextmanager
def serve(answers: Path) -> Iterator[Server]:
    """The edge on a free port, in a process of its own. Raises `PeerError` if it is not ready in time."""
    (port,) = child.free_ports(1)
    server = Server(EDGE, f"127.0.0.1:{port}", 0)
    command = [sys.executable, "-m", "benchmarks.peers.edge_server", str(port), str(answers), MODEL]
    environ = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])}
    with (
        tempfile.TemporaryDirectory() as folder,
        child.running(command, server.endpoint, MODEL, Path(folder), environ) as pid,
    ):
        yield Server(server.name, server.address, pid)
