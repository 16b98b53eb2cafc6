"""What gRPC says of a call that has ended: our codes as its status, and messages that are short enough to travel."""

from __future__ import annotations

from typing import NoReturn

import grpc

from serving.protocol.codes import Code

# Longer messages would make the trailing metadata too large, and the client would see something else instead.
MAX_DETAILS_BYTES = 1000


def status(code: Code) -> grpc.StatusCode:
    """gRPC's name of a code."""
    return grpc.StatusCode[code.name]


def details(message: str) -> str:
    """An error's message as it travels: cut where it is too long, with ? for what is no text (names on disk may hold it)."""
    encoded = message.encode(errors="replace")
    more = "..." if len(encoded) > MAX_DETAILS_BYTES else ""
    return encoded[:MAX_DETAILS_BYTES].decode(errors="ignore") + more


def abort(context: grpc.ServicerContext, code: Code, message: str) -> NoReturn:
    """Ends the call with this code; always raises, as gRPC's own `abort` does."""
    raise context.abort(status(code), details(message))
