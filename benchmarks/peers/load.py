"""The loads that every server gets, and which of them a server takes."""

from __future__ import annotations

import dataclasses

from benchmarks.peers.server import FLOOR, MLSERVER, OURS, TRITON

CLOSED, PERF, OPEN = "closed loop", "perf_analyzer", "open loop"
IN_FLIGHT, STREAMS, TLS, LENGTHS, RATE = "in-flight", "streams", "tls", "lengths", "rate"
GROUPS = (IN_FLIGHT, STREAMS, TLS, LENGTHS, RATE)
LEVELS = (1, 8, 32, 64)
MANY, STREAM_COUNT = 64, 8
ONE_LENGTH, OWN_LENGTHS = "one length", "lengths of their own"


@dataclasses.dataclass(frozen=True)
class Load:
    """What a client does. `in_flight` is 0 in an open loop; `lengths` is empty for requests of 24 steps."""

    client: str
    group: str
    in_flight: int
    lengths: str = ""

    @property
    def tls(self) -> bool:
        """Whether the server must speak TLS."""
        return self.group == TLS

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
        if self.tls:
            more.append("TLS")
        if self.lengths:
            more.append(self.lengths)
        return ", ".join([self.client, f"{self.in_flight} in flight", *more])


LOADS = (
    *(Load(client, IN_FLIGHT, level) for client in (CLOSED, PERF) for level in LEVELS),
    *(Load(client, STREAMS, MANY) for client in (CLOSED, PERF)),
    *(Load(CLOSED, LENGTHS, MANY, lengths) for lengths in (ONE_LENGTH, OWN_LENGTHS)),
    Load(OPEN, RATE, 0),
    Load(CLOSED, TLS, MANY),
)

_TAKES = {
    OURS: GROUPS,
    TRITON: GROUPS,
    MLSERVER: (IN_FLIGHT, LENGTHS, RATE),
    FLOOR: (IN_FLIGHT,),
}


def takes(server: str, load: Load) -> bool:
    """Whether a server can be given this load at all; perf_analyzer refuses MLServer."""
    return load.group in _TAKES[server] and not (server == MLSERVER and load.client == PERF)
