"""What `grpc` calls the end of a call: our codes as its status."""

from __future__ import annotations

from typing import NoReturn

import grpc

from serving.edge.status import DETAILS, PUSHBACK, details, retry_info
from serving.protocol.codes import Code


def status(code: Code) -> grpc.StatusCode:
    """gRPC's name of a code."""
    return grpc.StatusCode[code.name]


def abort(context: grpc.ServicerContext, code: Code, message: str, retry_ms: int = 0) -> NoReturn:
    """Ends the call with this code; always raises, as gRPC's own `abort` does."""
    if retry_ms:
        context.set_trailing_metadata(((PUSHBACK, str(retry_ms)), (DETAILS, retry_info(code, message, retry_ms))))
    raise context.abort(status(code), details(message))
