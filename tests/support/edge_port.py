"""The edge on nghttp2 with stubs behind it, and what is left of the clients that a test has had on it: nothing."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

from serving.edge.edges import NGHTTP2
from serving.edge.nghttp2_server import Nghttp2Server
from serving.edge.tls import Certificates
from serving.edge.traffic import Ask, Limits
from tests.support.frames import Raw
from tests.support.grpc_port import LIMITS, echo, port
from tests.support.running import until


@contextlib.contextmanager
def edge(
    infer: Ask = echo, *, limits: Limits = LIMITS, certificates: Certificates | None = None
) -> Iterator[Nghttp2Server]:
    """An open port; whatever is in flight at the end is cut off."""
    with port(NGHTTP2, infer, limits=limits, certificates=certificates) as server:
        assert isinstance(server, Nghttp2Server)
        yield server


@contextlib.contextmanager
def bystander(server: Nghttp2Server) -> Iterator[Raw]:
    """Another client, which is answered before and after whatever is done meanwhile, and of that nothing is left."""
    with Raw(server.port) as client:
        assert client.ask(1).data == b"\0\0\0\0\5hello"
        until(lambda: taken(server) == (1, 0, 0, 0))
        before = descriptors()
        yield client
        assert client.ask(2**30 + 1).data == b"\0\0\0\0\5hello"
        until(lambda: taken(server) == (1, 0, 0, 0))
        until(lambda: descriptors() == before)


def taken(server: Nghttp2Server) -> tuple[int, int, int, int]:
    """Connections; open calls; bytes of messages that are not whole or wait to be looked at; bytes of unsent answers."""
    traffic = server.traffic
    return server.counts.open, traffic.calls, traffic.unfinished + traffic.waiting_aside, traffic.unsent


def descriptors() -> int:
    """How many files this process has open."""
    return len(list(Path("/proc/self/fd").iterdir()))


def resident_bytes() -> int:
    """The memory of this process that is in use."""
    return int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1]) * os.sysconf("SC_PAGE_SIZE")
