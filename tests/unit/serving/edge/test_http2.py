"""One connection of HTTP/2: what comes is told of, windows are opened by hand, and a reset is no close."""

from __future__ import annotations

from typing import Any

import ngh2
import pytest
from ngh2 import ErrorCode
from ngh2.events import DataReceived, GoAwayReceived, PingAcknowledged, PingReceived, ResponseReceived, StreamReset

from serving.edge import http2
from serving.edge.http2 import (
    CONNECTION_WINDOW,
    ENHANCE_YOUR_CALM,
    NO_ERROR,
    OUTPUT_BYTES,
    STREAMS,
    WINDOW,
    Broken,
    Http2,
)
from tests.support.http2_client import Http2Client, headers

OK = ((b":status", b"200"),)
ENDING = ((b"grpc-status", b"0"),)
LARGE = 2 * WINDOW


class Pair:
    """Both ends of a connection; this is the server's listener, and `told` is what it was told."""

    def __init__(self, *, patient: bool = False) -> None:
        self.told: list[tuple[Any, ...]] = []
        self.server = Http2(self)
        self.client = Http2Client(patient=patient)
        self.exchange()
        self.told.clear()

    def requested(self, stream: int, headers: http2.Headers, end: bool) -> None:
        self.told.append(("requested", stream, dict(headers)[b":path"], end))

    def data(self, stream: int, data: bytes, end: bool) -> None:
        self.told.append(("data", stream, data, end))

    def closed(self, stream: int, reset: bool) -> None:
        self.told.append(("closed", stream, reset))

    def pinged(self) -> None:
        self.told.append(("pinged",))

    def ping_answered(self) -> None:
        self.told.append(("ping answered",))

    def settings_changed(self) -> None:
        self.told.append(("settings changed",))

    def over(self, code: int) -> None:
        self.told.append(("over", code))

    def exchange(self) -> list[Any]:
        """Carries over what both have to say until neither has anything; the client's events."""
        events = []
        while (asked := self.client.said()) or (answered := self.server.output()):
            if asked:
                self.server.receive(asked)
            else:
                events += self.client.hear(answered)
                self.server.tell()
        return events

    def data_bytes(self) -> int:
        """How many bytes of data were told of."""
        return sum(len(each[2]) for each in self.told if each[0] == "data")


def data_of(events: list[Any]) -> int:
    return sum(len(event.data) for event in events if isinstance(event, DataReceived))


def test_the_settings_of_the_server() -> None:
    pair = Pair()
    assert pair.client.connection.remote_settings[ngh2.Setting.MAX_CONCURRENT_STREAMS] == STREAMS
    assert pair.client.connection.remote_settings[ngh2.Setting.INITIAL_WINDOW_SIZE] == WINDOW
    assert pair.client.connection.remote_window_size == CONNECTION_WINDOW


def test_a_call_from_its_headers_to_its_end() -> None:
    pair = Pair()
    stream = pair.client.ask(b"ping", asked=headers(b"/service/method"))
    pair.exchange()
    assert pair.told == [("requested", stream, b"/service/method", False), ("data", stream, b"ping", True)]
    pair.server.answer(stream, OK, b"pong", ENDING)
    answered = pair.exchange()
    assert answered[0].headers == OK
    assert answered[1].data == b"pong"
    assert answered[2].headers == ENDING
    assert pair.told[2:] == [("closed", stream, False)]


@pytest.mark.parametrize(
    ("asked", "told"),
    [
        (lambda c: c.ask(), [("requested", 1, b"/x", True)]),
        (lambda c: c.ask(end=False), [("requested", 1, b"/x", False)]),
        (lambda c: c.ask(b"", end=True), [("requested", 1, b"/x", False), ("data", 1, b"", True)]),
        (
            lambda c: c.connection.send_trailers(c.ask(b"a", end=False), ((b"x", b"y"),)),
            [("requested", 1, b"/x", False), ("data", 1, b"a", False), ("data", 1, b"", True)],
        ),
        (lambda c: c.connection.ping(), [("pinged",)]),
        (lambda c: c.connection.update_settings({ngh2.Setting.ENABLE_PUSH: 0}), [("settings changed",)]),
        (lambda c: c.connection.send_goaway(0), [("over", NO_ERROR)]),
    ],
    ids=["headers alone", "open", "an empty frame at the end", "trailers", "ping", "settings", "goaway"],
)
def test_what_is_told_of(asked: Any, told: list[tuple[Any, ...]]) -> None:
    pair = Pair()
    asked(pair.client)
    pair.exchange()
    assert pair.told == told


def test_events_are_counted() -> None:
    pair = Pair()
    for _ in range(10):
        pair.client.ask(b"a")
    assert pair.server.receive(pair.client.said()) == 20
    assert pair.server.receive(memoryview(b"")) == 0


def test_a_reset_is_told_from_a_close() -> None:
    pair = Pair()
    streams = [pair.client.ask(b"a") for _ in range(3)]
    pair.exchange()
    pair.told.clear()
    pair.client.connection.reset_stream(streams[1], ErrorCode.CANCEL)
    pair.server.answer(streams[0], OK, b"", ENDING)
    pair.exchange()
    pair.server.answer(streams[2], OK, b"", ENDING)
    pair.exchange()
    assert sorted(pair.told) == [("closed", 1, False), ("closed", 3, True), ("closed", 5, False)]


def test_a_call_that_was_reset_before_it_was_seen_may_be_answered_all_the_same() -> None:
    """Its headers, its message and its reset have come in one segment: whoever is told of the headers cannot know."""
    pair = Pair()
    stream = pair.client.ask(b"abc", end=False)
    sent = bytes(pair.client.said())
    pair.client.connection.reset_stream(stream, ErrorCode.CANCEL)
    pair.server.receive(memoryview(sent + bytes(pair.client.said())))
    assert pair.told == [("requested", stream, b"/x", False), ("data", stream, b"abc", False), ("closed", stream, True)]
    pair.server.take(stream, 3)
    pair.server.widen(stream, LARGE)
    pair.server.refuse(stream, OK)
    pair.server.reset(stream, NO_ERROR)
    assert pair.server.unsent_of(stream) == 0
    with pytest.raises(Broken):
        pair.server.answer(stream, OK, b"late", ENDING)
    again = pair.client.ask(b"next")
    pair.exchange()
    assert pair.told[3:] == [("requested", again, b"/x", False), ("data", again, b"next", True)], "others go on"


def test_a_client_sends_no_more_than_the_window_until_it_was_taken() -> None:
    pair = Pair()
    stream = pair.client.ask(bytes(LARGE))
    pair.exchange()
    assert pair.data_bytes() == WINDOW
    pair.server.take(stream, WINDOW)
    pair.exchange()
    assert pair.data_bytes() == LARGE


def test_a_window_that_is_widened_lets_a_large_message_in_before_any_of_it_is_taken() -> None:
    pair = Pair()
    stream = pair.client.ask(bytes(LARGE))
    pair.exchange()
    pair.server.widen(stream, LARGE)
    pair.exchange()
    assert pair.data_bytes() == LARGE
    assert pair.told[-1][-1] is True


def test_one_stream_does_not_use_up_what_others_may_send() -> None:
    pair = Pair()
    for _ in range(10):
        pair.client.ask(bytes(LARGE), end=False)
    pair.exchange()
    assert pair.data_bytes() == 10 * WINDOW
    small = pair.client.ask(b"small")
    pair.exchange()
    assert pair.told[-1] == ("data", small, b"small", True)


def test_what_a_client_does_not_read_is_counted_and_the_rest_goes_on() -> None:
    pair = Pair(patient=True)
    slow = pair.client.ask(b"slow")
    pair.exchange()
    pair.server.begin(slow, OK)
    pair.server.send(slow, bytes(100_000))
    assert data_of(pair.exchange()) == 65_535
    assert pair.server.unsent_of(slow) == pair.server.unsent == 100_000 - 65_535
    pair.client.connection.acknowledge_received_data(65_535, slow)
    pair.server.finish(slow, ENDING)
    assert data_of(pair.exchange()) == 100_000 - 65_535
    assert pair.server.unsent == 0
    assert pair.told[-1] == ("closed", slow, False)


def test_no_more_than_so_many_bytes_are_handed_to_the_socket_at_once() -> None:
    pair = Pair()
    pair.client.connection.set_local_window_size(2**30)
    streams = [pair.client.ask() for _ in range(100)]
    pair.exchange()
    for stream in streams:
        pair.client.connection.set_local_window_size(2**20, stream_id=stream)
        pair.server.answer(stream, OK, bytes(60_000), ENDING)
    pair.server.receive(pair.client.said())
    first = pair.server.output()
    assert OUTPUT_BYTES <= len(first) < OUTPUT_BYTES + 70_000
    assert data_of(pair.client.hear(first) + pair.exchange()) == 100 * 60_000


def test_a_stream_that_the_server_resets_drops_what_was_not_sent() -> None:
    pair = Pair(patient=True)
    stream = pair.client.ask(b"a", end=False)
    pair.exchange()
    pair.server.answer(stream, OK, bytes(100_000), ENDING)
    pair.exchange()
    pair.server.reset(stream, ErrorCode.CANCEL)
    (reset,) = [event for event in pair.exchange() if isinstance(event, StreamReset)]
    assert (reset.stream_id, reset.error_code) == (stream, ErrorCode.CANCEL)
    assert pair.server.unsent == 0
    assert pair.told[-1] == ("closed", stream, False), "it was not the client's"


def test_headers_alone_refuse_a_call() -> None:
    pair = Pair()
    stream = pair.client.ask(b"a")
    pair.exchange()
    pair.server.refuse(stream, (*OK, *ENDING))
    (answered,) = [event for event in pair.exchange() if isinstance(event, ResponseReceived)]
    assert answered.headers == (*OK, *ENDING)
    assert answered.end_stream


def test_pings_both_ways() -> None:
    pair = Pair()
    pair.server.ping()
    assert [type(event) for event in pair.exchange()] == [PingReceived]
    assert pair.told == [("ping answered",)]
    pair.client.connection.ping()
    assert [type(event) for event in pair.exchange()] == [PingAcknowledged]


def test_leaving_in_two_steps() -> None:
    """First the client hears that it is to open no more; what is on its way then is taken, and what comes after that is not."""
    pair = Pair()
    early = pair.client.ask(b"early")
    pair.exchange()
    pair.server.announce_end()
    on_its_way = pair.client.ask(b"on its way")
    sent = pair.client.said()
    (notice,) = pair.client.hear(pair.server.output())
    assert isinstance(notice, GoAwayReceived)
    assert (notice.last_stream_id, notice.error_code) == (2**31 - 1, NO_ERROR)
    pair.server.receive(sent)
    assert pair.told[-1] == ("data", on_its_way, b"on its way", True)
    pair.server.end()
    (last,) = pair.client.hear(pair.server.output())
    assert (last.last_stream_id, last.error_code) == (on_its_way, NO_ERROR)
    assert not any(each[0] == "over" for each in pair.told), "two calls are open"
    for stream in (early, on_its_way):
        pair.server.answer(stream, OK, b"", ENDING)
    pair.exchange()
    assert pair.told[-1] == ("over", NO_ERROR)


def test_a_client_is_told_why_it_is_thrown_out() -> None:
    pair = Pair()
    pair.server.end(ENHANCE_YOUR_CALM, b"too_many_pings")
    (told,) = [event for event in pair.exchange() if isinstance(event, GoAwayReceived)]
    assert (told.error_code, told.debug_data) == (ENHANCE_YOUR_CALM, b"too_many_pings")
    assert pair.told == [("over", ENHANCE_YOUR_CALM)]


def test_a_thousand_resets_are_left_to_whoever_counts_them() -> None:
    pair = Pair()
    for _ in range(3000):
        stream = pair.client.ask(b"a")
        pair.server.receive(pair.client.said())
        pair.client.connection.reset_stream(stream, ErrorCode.CANCEL)
        pair.exchange()
    assert [each[0] for each in pair.told[-3:]] == ["requested", "data", "closed"]
    assert not any(each[0] == "over" for each in pair.told)


def test_bytes_that_are_no_http2_are_broken() -> None:
    with pytest.raises(Broken):
        Http2(Pair()).receive(memoryview(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n"))


def test_a_rule_that_is_broken_ends_the_connection_with_the_reason() -> None:
    pair = Pair()
    pair.server.receive(memoryview(b"\0\0\1\1\5\0\0\0\1X"))  # HEADERS that cannot be decoded
    (told,) = [event for event in pair.client.hear(pair.server.output()) if isinstance(event, GoAwayReceived)]
    assert told.error_code == ErrorCode.COMPRESSION_ERROR
    pair.server.tell()
    assert pair.told == [("over", ErrorCode.COMPRESSION_ERROR)]
    with pytest.raises(Broken):
        pair.server.receive(memoryview(b"\0\0\1\1\5\0\0\0\1X"))
