"""What `grpc` calls the end of a call: our codes as its status."""

from __future__ import annotations

from typing import NoReturn

import grpc

from serving.edge.status import details
from serving.protocol.codes import Code


def status(code: Code) -> grpc.StatusCode:
    """gRPC's name of a code."""
    return grpc.StatusCode[code.name]


def abort(context: grpc.ServicerContext, code: Code, message: str) -> NoReturn:
    """Ends the call with this code; always raises, as gRPC's own `abort` does."""
    raise context.abort(status(code), details(message))
