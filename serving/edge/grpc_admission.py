"""Who is let in: what the headers of a call say, and why it is turned away before anything else of it is read."""

from __future__ import annotations

from collections.abc import Mapping

from serving.edge import grpc_wire as wire
from serving.edge.grpc_wire import Headers
from serving.edge.traffic import Route, Traffic
from serving.protocol.codes import Code, answer_for

_CONTENT_TYPE = b"application/grpc"
HEADERS: Headers = ((b":status", b"200"), (b"content-type", _CONTENT_TYPE))


class Refused(Exception):
    """A call is turned away by an answer of headers alone; with a `code` of gRPC's, if it was a call of gRPC's at all."""

    def __init__(self, answer: Headers, code: Code | None = None) -> None:
        super().__init__(code)
        self.answer = answer
        self.code = code


def admitted(
    fields: Mapping[bytes, bytes], headers: Headers, traffic: Traffic, calls: int, unsent: int, now: int
) -> tuple[Route, int | None, bytes, str]:
    """The method of a call, its deadline in nanoseconds of `now` (None where there is none), and the encoding of its messages.

    And who calls, by the token that it carries, empty where none is asked for. `fields` are the `headers` by name. Its connection
    has so many open `calls`, and so many bytes of answers `unsent`. Raises
    `Refused`.
    """
    if fields.get(b"content-type") != _CONTENT_TYPE or fields.get(b":method") != b"POST":
        _check_http(fields)
    timeout = fields.get(b"grpc-timeout")
    try:
        deadline_ns = None if timeout is None else now + wire.timeout_ns(timeout)
    except wire.Malformed as error:
        raise _refused(Code.INVALID_ARGUMENT, str(error)) from None
    _check_size(fields, headers, traffic.limits.metadata_bytes)
    caller = ""
    if traffic.tokens:
        sent = [("authorization", value) for name, value in headers if name == b"authorization"]
        stranger = traffic.tokens.refusal(fields[b":path"].decode(errors="replace"), sent)
        if stranger:
            raise _refused(*answer_for(stranger))
        caller = traffic.tokens.caller(sent)
    route = traffic.routes.get(fields[b":path"])
    if route is None:
        method = fields[b":path"][:200].decode(errors="replace")
        raise _refused(Code.UNIMPLEMENTED, f"there is no method {method!r} here")
    encoding = fields.get(b"grpc-encoding", b"identity")
    if encoding not in wire.ENCODINGS:
        told = (
            f"grpc-encoding is {encoding[:40].decode(errors='replace')!r}; this server knows {wire.ACCEPTED.decode()}"
        )
        raise _refused(Code.UNIMPLEMENTED, told, ((b"grpc-accept-encoding", wire.ACCEPTED),))
    if not route.always:
        _check_room(traffic, calls, unsent)
    return route, deadline_ns, encoding, caller


def _refused(code: Code, message: str, more: Headers = ()) -> Refused:
    return Refused((*HEADERS, *wire.ending(code, message), *more), code)


def _check_http(fields: Mapping[bytes, bytes]) -> None:
    """A request that is none of gRPC's is answered in the terms of HTTP."""
    if fields.get(b":method") != b"POST":
        raise Refused(((b":status", b"405"), (b"allow", b"POST")))
    kind = fields.get(b"content-type", b"")
    if not kind.startswith(_CONTENT_TYPE) or kind[len(_CONTENT_TYPE) :][:1] not in (b"", b"+", b";"):
        raise Refused(((b":status", b"415"), (b"accept", _CONTENT_TYPE)))


def _check_size(fields: Mapping[bytes, bytes], headers: Headers, most: int) -> None:
    size = sum(map(len, fields.values())) + sum(map(len, fields))
    if len(fields) < len(headers):  # some are there twice
        size = sum(len(name) + len(value) for name, value in headers)
    if size > most:
        raise _refused(Code.RESOURCE_EXHAUSTED, f"the metadata have {size} bytes; {most} are allowed")


def _check_room(traffic: Traffic, calls: int, unsent: int) -> None:
    limits = traffic.limits
    # Who has fewer than its share is let in all the same: those that have taken all the room are to feel it, not others.
    if traffic.calls >= limits.calls and calls * len(traffic.connections) >= limits.calls:
        told = f"{traffic.calls} calls are open, and no more are allowed; try again later"
        raise _refused(Code.RESOURCE_EXHAUSTED, told)
    if unsent > limits.unsent_answers * limits.message_bytes or (
        unsent and traffic.unsent > limits.unsent_answers_in_all * limits.message_bytes
    ):
        raise _refused(
            Code.RESOURCE_EXHAUSTED, f"{unsent} bytes of answers wait to be read by this client; read them first"
        )
