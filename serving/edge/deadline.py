"""Until when a client of gRPC waits for its answer."""

from __future__ import annotations

import grpc

# To a client that has set no deadline gRPC gives 9.2e18 seconds; nobody asks for as much as this.
FOREVER_SECONDS = 1e9


def deadline_ns(context: grpc.ServicerContext, received_ns: int) -> int | None:
    """The deadline of a call that came at `received_ns`, on the clock of `timeline.now_ns`; None where there is none."""
    remaining = context.time_remaining()
    if remaining is None or remaining > FOREVER_SECONDS:
        return None
    return received_ns + int(remaining * 1e9)
