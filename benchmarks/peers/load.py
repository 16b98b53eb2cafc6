"""The loads that every server gets, and which of them a server takes."""

from __future__ import annotations

import dataclasses

from benchmarks.peers.server import EDGE, FLOOR, MLSERVER, OURS, PUBLIC, TRITON

CLOSED, PERF, OPEN = "closed loop", "perf_analyzer", "open loop"
IN_FLIGHT, STREAMS, TLS, MUTUAL_TLS, LENGTHS, RATE = "in-flight", "streams", "tls", "mutual-tls", "lengths", "rate"
GROUPS = (IN_FLIGHT, STREAMS, TLS, MUTUAL_TLS, LENGTHS, RATE)
LEVELS = (1, 8, 32, 64)
MANY, STREAM_COUNT = 64, 8
PLAIN = "plain"
ONE_LENGTH, OWN_LENGTHS = "one length", "lengths of their own"


@dataclasses.dataclass(frozen=True)
class Load:
    """What a client does. `in_flight` is 0 in an open loop; `lengths` is empty for requests of 24 steps."""

    client: str
    group: str
    in_flight: int
    lengths: str = ""

    @property
    def connection(self) -> str:
        """What the server must speak: PLAIN, TLS, or MUTUAL_TLS, where the client shows a certificate too."""
        return self.group if self.group in (TLS, MUTUAL_TLS) else PLAIN

    @property
    def streaming(self) -> bool:
        """Whether requests are messages on streams."""
        return self.group == STREAMS

    def title(self, rate: float | None = None) -> str:
        """`closed loop, 8 in flight`; `rate` is that of the open loop, in requests a second."""
        if self.client == OPEN:
            return f"{OPEN}, {rate:.0f}/s" if rate else OPEN
        more = []
        if self.streaming:
            more.append(f"{STREAM_COUNT} streams" if self.client == CLOSED else "streams")
        if self.connection != PLAIN:
            more.append("TLS" if self.connection == TLS else "mutual TLS")
        if self.lengths:
            more.append(self.lengths)
        return ", ".join([self.client, f"{self.in_flight} in flight", *more])


LOADS = (
    *(Load(client, IN_FLIGHT, level) for client in (CLOSED, PERF) for level in LEVELS),
    *(Load(client, STREAMS, MANY) for client in (CLOSED, PERF)),
    *(Load(CLOSED, LENGTHS, MANY, lengths) for lengths in (ONE_LENGTH, OWN_LENGTHS)),
    Load(OPEN, RATE, 0),
    *(Load(CLOSED, group, MANY) for group in (TLS, MUTUAL_TLS)),
)

_TAKES = {
    OURS: GROUPS,
    PUBLIC: (IN_FLIGHT,),
    TRITON: GROUPS,
    MLSERVER: (IN_FLIGHT, LENGTHS, RATE),
    EDGE: (IN_FLIGHT,),
    FLOOR: (IN_FLIGHT,),
}


def takes(server: str, load: Load) -> bool:
    """Whether a server is given this load: perf_analyzer refuses MLServer, and the other edge is seen at both ends alone."""
    if load.group not in _TAKES[server] or (server == MLSERVER and load.client == PERF):
        return False
    return server != PUBLIC or load.in_flight in (1, MANY)
