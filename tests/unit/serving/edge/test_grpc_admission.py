"""Who is let in by what the headers say, and how who is not is told."""

from __future__ import annotations

from collections.abc import Mapping
from concurrent.futures import Executor
from pathlib import Path
from typing import cast

import pytest

from serving.edge.grpc_admission import Refused, admitted
from serving.edge.tokens import Tokens
from serving.edge.traffic import Limits, Route, Traffic
from serving.protocol.codes import Code

NOW = 10**12
PATH = b"/inference.GRPCInferenceService/ModelInfer"
USUAL = {b":method": b"POST", b":path": PATH, b"content-type": b"application/grpc", b"te": b"trailers"}
ROUTE = Route(object, lambda payload, call: None)
LIMITS = Limits(1000, metadata_bytes=500, calls=4)


def traffic(tokens: Tokens | None = None, calls: int = 0, connections: int = 1) -> Traffic:
    made = Traffic({PATH: ROUTE}, lambda asked: None, LIMITS, tokens, cast(Executor, None), lambda code: None)
    made.calls = calls
    made.connections = dict.fromkeys(range(connections))  # type: ignore[assignment,arg-type]
    return made


def ask(
    more: Mapping[bytes, bytes | None], known: Traffic, calls: int = 0, unsent: int = 0
) -> tuple[int | None, bytes]:
    """The deadline and the encoding of a call with the usual headers but for some; None leaves one out."""
    fields = {name: value for name, value in {**USUAL, **more}.items() if value is not None}
    route, deadline_ns, encoding, _ = admitted(fields, tuple(fields.items()), known, calls, unsent, NOW)
    assert route is ROUTE
    return deadline_ns, encoding


@pytest.mark.parametrize(
    ("more", "deadline_ns", "encoding"),
    [
        ({}, None, b"identity"),
        ({b"grpc-timeout": b"5S"}, NOW + 5 * 10**9, b"identity"),
        ({b"grpc-timeout": b"0n"}, NOW, b"identity"),
        ({b"grpc-encoding": b"gzip"}, None, b"gzip"),
        ({b"content-type": b"application/grpc+proto"}, None, b"identity"),
        ({b"content-type": b"application/grpc;charset=utf-8"}, None, b"identity"),
        ({b"te": None}, None, b"identity"),
        ({b"mine": b"x" * 300}, None, b"identity"),
    ],
)
def test_who_is_let_in(more: Mapping[bytes, bytes | None], deadline_ns: int | None, encoding: bytes) -> None:
    assert ask(more, traffic()) == (deadline_ns, encoding)


@pytest.mark.parametrize(
    ("more", "status"),
    [
        ({b":method": b"GET"}, b"405"),
        ({b":method": b"GET", b"content-type": None}, b"405"),
        ({b"content-type": None}, b"415"),
        ({b"content-type": b"application/json"}, b"415"),
        ({b"content-type": b"application/grpc-web"}, b"415"),
    ],
)
def test_what_is_none_of_grpc_is_answered_as_http(more: Mapping[bytes, bytes | None], status: bytes) -> None:
    with pytest.raises(Refused) as refused:
        ask(more, traffic())
    assert refused.value.code is None
    assert refused.value.answer[0] == (b":status", status)


@pytest.mark.parametrize(
    ("more", "code", "told"),
    [
        ({b"grpc-timeout": b"5"}, Code.INVALID_ARGUMENT, b"grpc-timeout is '5'"),
        ({b"grpc-timeout": b"123456789n"}, Code.INVALID_ARGUMENT, b"1 to 8 digits"),
        ({b":path": b"/inference.GRPCInferenceService/Nope"}, Code.UNIMPLEMENTED, b"Nope"),
        ({b":path": b"/\xff\xfe"}, Code.UNIMPLEMENTED, b"there is no method"),
        ({b"grpc-encoding": b"br"}, Code.UNIMPLEMENTED, b"identity,deflate,gzip"),
        ({b"mine": b"x" * 600}, Code.RESOURCE_EXHAUSTED, b"500 are allowed"),
    ],
)
def test_who_is_turned_away(more: Mapping[bytes, bytes | None], code: Code, told: bytes) -> None:
    with pytest.raises(Refused) as refused:
        ask(more, traffic())
    answer = dict(refused.value.answer)
    assert refused.value.code is code
    assert (answer[b":status"], answer[b"grpc-status"]) == (b"200", b"%d" % code.value)
    assert told in answer[b"grpc-message"]


def test_metadata_that_are_there_twice_count_twice() -> None:
    headers = (*USUAL.items(), *[(b"mine", b"x" * 90)] * 5)
    with pytest.raises(Refused, match="RESOURCE_EXHAUSTED"):
        admitted(dict(headers), headers, traffic(), 0, 0, NOW)


def test_a_token_is_looked_for_in_each_authorization(tmp_path: Path) -> None:
    (tmp_path / "tokens").write_text("0123456789abcdef")
    known = traffic(Tokens(tmp_path / "tokens", open_health=False))
    right = (b"authorization", b"Bearer 0123456789abcdef")
    for sent in ((right,), ((b"authorization", b"Bearer no"), right)):
        headers = (*USUAL.items(), *sent)
        assert admitted(dict(headers), headers, known, 0, 0, NOW)[0] is ROUTE
    for more in ({}, {b"authorization": b"Bearer no"}, {b"authorization": b"0123456789abcdef"}):
        with pytest.raises(Refused) as refused:
            ask(more, known)
        assert refused.value.code is Code.UNAUTHENTICATED


@pytest.mark.parametrize(
    ("calls", "own", "connections", "let_in"),
    [(3, 3, 1, True), (4, 4, 1, False), (4, 2, 2, False), (4, 1, 2, True), (4, 0, 2, True)],
)
def test_where_all_calls_are_open_who_has_fewer_than_its_share_is_let_in(
    calls: int, own: int, connections: int, let_in: bool
) -> None:
    known = traffic(calls=calls, connections=connections)
    if let_in:
        assert ask({}, known, own) == (None, b"identity")
    else:
        with pytest.raises(Refused, match="RESOURCE_EXHAUSTED"):
            ask({}, known, own)


@pytest.mark.parametrize(
    ("own", "all_of_them", "let_in"), [(2000, 2000, True), (2001, 2001, False), (0, 9000, True), (1, 9000, False)]
)
def test_who_does_not_read_its_answers_may_ask_no_more(own: int, all_of_them: int, let_in: bool) -> None:
    known = traffic()
    known.unsent = all_of_them
    if let_in:
        assert ask({}, known, unsent=own) == (None, b"identity")
    else:
        with pytest.raises(Refused, match="RESOURCE_EXHAUSTED"):
            ask({}, known, unsent=own)


def test_health_is_let_in_though_all_calls_are_taken() -> None:
    known = traffic(calls=4)
    with pytest.raises(Refused, match="RESOURCE_EXHAUSTED"):
        ask({}, known, calls=4)
    always = ROUTE._replace(always=True)
    known.routes = {PATH: always}
    assert admitted(USUAL, tuple(USUAL.items()), known, 4, 10**9, NOW)[0] is always
