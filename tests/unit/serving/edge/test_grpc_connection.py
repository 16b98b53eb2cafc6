"""One connection: who is let in, what is told where not, floods, silence, and how it is left."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest
from ngh2 import ErrorCode

from serving.edge import grpc_wire as wire
from serving.edge import http2
from serving.edge.grpc_connection import EVENTS_A_TURN, FRUITLESS, UNASKED
from serving.edge.links import Closed
from serving.edge.tokens import Tokens
from serving.edge.traffic import Limits
from serving.protocol.codes import Code
from serving.telemetry.timeline import now_ns
from tests.support.grpc_in_memory import INFER, MESSAGE_BYTES, SECOND, STREAM, WATCH, InMemory
from tests.support.http2_client import headers

LIMITS = Limits(MESSAGE_BYTES)


def asking(there: InMemory, sent: Mapping[bytes, bytes], data: bytes = b"") -> int:
    """A call with these fields in the place of the usual ones; an empty one is left out."""
    fields = {**dict(headers(INFER)), **sent}
    stream = there.client.connection.send_request([each for each in fields.items() if each[1]], end_stream=False)
    there.send(stream, data, end=True)
    there.turn()
    return stream


# Who is let in.


@pytest.mark.parametrize("kind", [b"application/grpc", b"application/grpc+proto", b"application/grpc;charset=utf-8"])
def test_every_way_to_say_grpc_is_let_in(kind: bytes) -> None:
    there = InMemory()
    asking(there, {b"content-type": kind}, wire.framed(b"a"))
    assert [payload for payload, _ in there.asked] == [b"a"]


@pytest.mark.parametrize(
    ("fields", "status"),
    [
        ({b":method": b"GET"}, b"405"),
        ({b":method": b"PUT"}, b"405"),
        ({b"content-type": b"application/json"}, b"415"),
        ({b"content-type": b"application/grpcx"}, b"415"),
        ({b"content-type": b""}, b"415"),
        ({b":method": b"GET", b"content-type": b""}, b"405"),
    ],
)
def test_what_is_no_call_is_answered_in_the_terms_of_http(fields: Mapping[bytes, bytes], status: bytes) -> None:
    there = InMemory()
    stream = asking(there, fields)
    assert there.answers[stream].headers[b":status"] == status
    assert there.nothing_left()
    assert not there.refused, "it is no call"


@pytest.mark.parametrize(
    ("fields", "code", "told"),
    [
        ({b":path": b"/nowhere"}, Code.UNIMPLEMENTED, "there is no method '/nowhere' here"),
        ({b":path": b"/" + b"a" * 5000}, Code.UNIMPLEMENTED, f"there is no method '/{'a' * 199}' here"),
        ({b"grpc-timeout": b"soon"}, Code.INVALID_ARGUMENT, "grpc-timeout is 'soon'; it must be 1 to 8 digits"),
        (
            {b"grpc-encoding": b"br"},
            Code.UNIMPLEMENTED,
            "grpc-encoding is 'br'; this server knows identity,deflate,gzip",
        ),
        ({b"more": b"a" * 20_000}, Code.RESOURCE_EXHAUSTED, "the metadata have 20"),
        ({b"a" * 20_000: b"more"}, Code.RESOURCE_EXHAUSTED, "the metadata have 20"),
    ],
    ids=["a method", "a long one", "a time-out", "an encoding", "metadata", "a long name"],
)
def test_what_is_refused_by_its_headers(fields: Mapping[bytes, bytes], code: Code, told: str) -> None:
    there = InMemory()
    stream = asking(there, fields, wire.framed(b"never seen"))
    ended = there.ended(stream)
    assert ended
    assert ended[0] is code
    assert ended[1].startswith(told)
    assert there.refused == [code.name]
    assert not there.asked
    assert there.nothing_left()


def test_whoever_has_an_unknown_encoding_is_told_which_are_known() -> None:
    there = InMemory()
    stream = asking(there, {b"grpc-encoding": b"br"})
    assert there.answers[stream].headers[b"grpc-accept-encoding"] == wire.ACCEPTED


def test_metadata_that_are_there_twice_count_twice() -> None:
    there = InMemory()
    fields = [*headers(INFER), *[(b"x", b"a" * 9000)] * 2]
    stream = there.client.connection.send_request(fields, end_stream=True)
    there.turn()
    ended = there.ended(stream)
    assert ended
    assert ended[0] is Code.RESOURCE_EXHAUSTED


def test_a_call_without_a_token_is_turned_away_before_all_else(tmp_path: Path) -> None:
    (tmp_path / "tokens").write_text("0123456789abcdef")
    there = InMemory(tokens=Tokens(tmp_path / "tokens", open_health=False))
    for fields in ({}, {b":path": b"/nowhere"}, {b"authorization": b"Bearer wrong"}):
        ended = there.ended(asking(there, fields))
        assert ended
        assert ended[0] is Code.UNAUTHENTICATED
    asking(there, {b"authorization": b"Bearer 0123456789abcdef"}, wire.framed(b"a"))
    assert [payload for payload, _ in there.asked] == [b"a"]


def test_no_more_calls_are_let_in_than_may_be_open() -> None:
    there = InMemory(limits=LIMITS._replace(calls=2))
    first, second = there.ask(INFER, b"1"), there.ask(WATCH, end=False)
    third = there.ask(INFER, b"3")
    there.turn()
    assert there.ended(third) == (Code.RESOURCE_EXHAUSTED, "2 calls are open, and no more are allowed; try again later")
    there.reset(second)
    there.turn()
    fourth = there.ask(INFER, b"4")
    there.turn()
    assert [payload for payload, _ in there.asked] == [b"1", b"4"]
    assert there.ended(first) is there.ended(fourth) is None


@pytest.mark.parametrize("answer_bytes", [100_000, 3_000_000])
def test_who_does_not_read_answers_may_ask_nothing_more(answer_bytes: int) -> None:
    there = InMemory(limits=Limits(message_bytes=4_000_000, unsent_answers=1, unsent_answers_in_all=4), patient=True)
    slow = [there.ask(INFER, b"%d" % number) for number in range(4)]
    there.turn()
    for _, call in there.asked:
        call.reply(bytes(answer_bytes))
    there.turn()
    more = there.ask(INFER, b"more")
    there.turn()
    ended = there.ended(more)
    if answer_bytes * len(slow) > 4_000_000:
        assert ended
        assert ended[0] is Code.RESOURCE_EXHAUSTED
        assert "bytes of answers wait to be read by this client" in ended[1]
    else:
        assert ended is None


# Messages.


def test_a_message_that_is_too_large_is_refused_by_its_prefix() -> None:
    there = InMemory()
    stream = there.ask(INFER, end=False)
    there.send(stream, wire.prefix(MESSAGE_BYTES + 1))
    there.turn()
    assert there.ended(stream) == (
        Code.RESOURCE_EXHAUSTED,
        f"Received message larger than max ({MESSAGE_BYTES + 1} vs. {MESSAGE_BYTES}); --max-message-bytes sets the limit",
    )
    assert there.answers[stream].reset == ErrorCode.NO_ERROR, "and its client need not send the rest"
    assert there.nothing_left()


@pytest.mark.parametrize("size", [http2.WINDOW - 100, http2.WINDOW, 2 * http2.WINDOW, MESSAGE_BYTES])
@pytest.mark.parametrize("path", [INFER, STREAM])
def test_a_large_message_comes_through_whatever_the_window_is(path: bytes, size: int) -> None:
    there = InMemory()
    for _ in range(2):
        there.ask(path, bytes(size), bytes(size)) if path == STREAM else there.ask(path, bytes(size))
        there.turn()
        there.aside.work()
        there.turn()
        there.aside.work()
        there.turn()
    assert {len(payload) for payload, _ in there.asked} == {size}
    assert there.traffic.unfinished == 0


def test_unfinished_messages_of_one_connection_are_bounded() -> None:
    there = InMemory(limits=LIMITS._replace(unfinished_messages=2))
    half = wire.framed(bytes(MESSAGE_BYTES))[:600_000]
    streams = [there.ask(INFER, end=False) for _ in range(5)]
    for stream in streams:
        there.send(stream, half)
        there.turn()
    assert [there.ended(stream) is None for stream in streams] == [True, True, True, False, False]
    ended = there.ended(streams[-1])
    assert ended
    assert ended[0] is Code.RESOURCE_EXHAUSTED
    assert "send fewer large messages at the same time" in ended[1]
    assert there.traffic.unfinished == 3 * 600_000
    there.reset(streams[0])
    there.turn()
    assert there.traffic.unfinished == 2 * 600_000
    again = there.ask(INFER, end=False)
    there.send(again, half)
    there.turn()
    assert there.ended(again) is None, "there is room again"


def test_unfinished_messages_of_others_count_too() -> None:
    there = InMemory(limits=LIMITS._replace(unfinished_messages_in_all=3))
    there.traffic.unfinished = 3 * MESSAGE_BYTES  # on other connections
    stream = there.ask(INFER, end=False)
    there.send(stream, wire.framed(bytes(100))[:50])
    there.turn()
    ended = there.ended(stream)
    assert ended
    assert ended[0] is Code.RESOURCE_EXHAUSTED
    assert there.traffic.unfinished == 3 * MESSAGE_BYTES


def test_an_answer_that_is_too_large_is_an_error() -> None:
    there = InMemory()
    stream = there.ask(INFER, b"a")
    there.turn()
    there.asked[0][1].reply(bytes(MESSAGE_BYTES + 1))
    there.turn()
    ended = there.ended(stream)
    assert ended
    assert ended[0] is Code.RESOURCE_EXHAUSTED
    assert ended[1].startswith(f"Sent message larger than max ({MESSAGE_BYTES + 1} vs. {MESSAGE_BYTES})")
    assert there.nothing_left()


@pytest.mark.parametrize("sent", [b"", wire.framed(b"more")])
def test_a_client_that_still_sends_when_its_call_is_over_is_told_to_stop(sent: bytes) -> None:
    there = InMemory()
    stream = there.client.connection.send_request(headers(b"/nowhere"), end_stream=False)
    there.send(stream, sent)
    there.turn()
    assert there.answers[stream].reset == ErrorCode.NO_ERROR
    ended = there.ended(stream)
    assert ended
    assert ended[0] is Code.UNIMPLEMENTED, "which it has heard before"


def test_a_client_that_has_sent_everything_is_not_reset() -> None:
    there = InMemory()
    stream = there.ask(b"/nowhere", b"a")
    there.turn()
    assert there.ended(stream)
    assert there.answers[stream].reset is None


# Floods.


def flood(
    there: InMemory, count: int, path: bytes = INFER, message: bytes | None = b"a", *, end: bool = True, **fields: bytes
) -> None:
    """Begins so many calls and resets each in the turn in which it was begun."""
    for _ in range(count):
        stream = there.ask(path, *([message] if message is not None else []), end=end, **fields)
        data = bytes(there.client.said())
        there.reset(stream)
        there.connection.receive(memoryview(data + bytes(there.client.said())))
        there.turn()


@pytest.mark.parametrize(
    ("path", "message", "end"),
    [(INFER, b"a", True), (INFER, b"a", False), (INFER, None, False), (STREAM, b"a", False), (STREAM, None, False)],
    ids=["whole", "not ended", "without a message", "a stream with a message", "a stream without"],
)
def test_calls_that_are_begun_and_reset_at_once_are_bounded(path: bytes, message: bytes | None, end: bool) -> None:
    there, most = InMemory(), int(FRUITLESS[0])
    flood(there, most, path, message, end=end)
    assert there.asked == [], "nothing was asked for any of them"
    assert there.nothing_left()
    with pytest.raises(Closed, match="flood"):
        flood(there, most, path, message, end=end)
    (told,) = there.client.hear(there.connection.output())[-1:]
    assert told.debug_data == b"too many calls that were begun and cancelled at once"


@pytest.mark.parametrize("how", ["late", "a late stream", "answered", "queued", "refused"])
def test_a_reset_of_a_call_that_was_worth_its_while_is_no_offence(how: str) -> None:
    there = InMemory()
    for _ in range(3 * int(FRUITLESS[0])):
        if "late" in how:
            flood(there, 1, STREAM if how == "a late stream" else INFER, grpc_timeout=b"1n")
            continue
        stream = there.ask(b"/nowhere" if how == "refused" else INFER, b"a", end=False)
        there.send(stream, end=how == "queued")
        there.turn()
        if how == "answered":
            there.send(stream, end=True)
            there.turn()
            there.asked[-1][1].reply(b"")
            there.turn()
        there.reset(stream)
        there.turn()
    assert there.open == 0
    assert not there.closed


@pytest.mark.parametrize("what", ["pings", "settings", "empty frames"])
def test_clients_that_ask_for_nothing_are_thrown_out(what: str) -> None:
    there = InMemory()
    stream = there.ask(WATCH, b"health", end=False)
    there.turn()

    def so_many(count: int) -> None:
        for _ in range(count):
            if what == "pings":
                there.client.connection.ping()
            elif what == "settings":
                there.client.connection.update_settings({4: 65_535})
            else:
                there.connection.data(stream, b"", False)
            there.turn()

    so_many(int(UNASKED[0]))
    with pytest.raises(Closed, match="flood"):
        so_many(int(UNASKED[0]))
    (told,) = there.client.hear(there.connection.output())[-1:]
    assert (told.error_code, told.debug_data) == (ErrorCode.ENHANCE_YOUR_CALM, b"too_many_pings")


def test_a_ping_for_each_call_is_free() -> None:
    there = InMemory()
    for number in range(5 * int(UNASKED[0])):
        there.client.connection.ping()
        there.ask(INFER, b"%d" % number)
        there.turn()
        there.asked[-1][1].reply(b"")
        there.turn()
    assert not there.closed


def test_no_more_than_so_many_events_are_taken_in_a_turn() -> None:
    there = InMemory()
    for _ in range(EVENTS_A_TURN // 2 - 1):  # each is headers and data
        there.ask(INFER, b"a")
    assert there.connection.receive(there.client.said()) is True
    there.ask(INFER, b"a")
    assert there.connection.receive(there.client.said()) is False
    assert there.connection.receive(memoryview(b"")) is False, "there is no more room in this turn"
    there.traffic.hand_up()
    assert there.connection.receive(memoryview(b"")) is True


# Silence, age, leaving.


def test_a_silent_client_is_asked_whether_it_is_there() -> None:
    there = InMemory()
    there.after(LIMITS.keepalive_seconds - 1)
    assert there.pings == 0
    there.after(LIMITS.keepalive_seconds + 1)
    assert there.pings == 1
    there.after(LIMITS.keepalive_seconds + 1)  # it has answered


def test_a_client_that_does_not_answer_is_given_up() -> None:
    there = InMemory()
    begin = now_ns() + int((LIMITS.keepalive_seconds + 1) * SECOND)
    there.connection.tick(begin)
    there.connection.output()  # which is lost on the way
    there.connection.tick(begin + int((LIMITS.keepalive_timeout_seconds - 1) * SECOND))
    with pytest.raises(Closed, match="keepalive_timeout"):
        there.connection.tick(begin + int((LIMITS.keepalive_timeout_seconds + 1) * SECOND))


@pytest.mark.parametrize(
    ("limits", "busy", "leaves"),
    [
        ({"idle_seconds": 10.0}, False, True),
        ({"idle_seconds": 10.0}, True, False),
        ({"age_seconds": 10.0}, False, True),
        ({"age_seconds": 10.0}, True, True),
        ({}, False, False),
    ],
)
def test_when_a_connection_is_too_old(limits: dict[str, float], busy: bool, leaves: bool) -> None:
    there = InMemory(limits=LIMITS._replace(**limits, keepalive_seconds=0))
    if busy:
        there.ask(INFER, b"a")
        there.turn()
    there.after(9)
    assert not there.went_away
    there.after(11)
    assert [each.last_stream_id for each in there.went_away] == [2**31 - 1] * leaves


@pytest.mark.parametrize("why", ["idle", "age"])
def test_an_old_connection_with_nothing_open_is_closed(why: str) -> None:
    there = InMemory(limits=LIMITS._replace(**{f"{why}_seconds": 10.0}))
    there.after(11)
    with pytest.raises(Closed, match=why):
        there.after(12)


def test_what_is_open_on_an_old_connection_is_answered() -> None:
    there = InMemory(limits=LIMITS._replace(age_seconds=10))
    stream = there.ask(INFER, b"a")
    there.turn()
    for seconds in (11, 12, 100):
        there.after(seconds)
    assert [each.last_stream_id for each in there.went_away] == [2**31 - 1, stream]
    there.asked[0][1].reply(b"answer")
    there.turn()
    assert there.answers[stream].messages == [b"answer"]
    assert there.closed == ["age"]


def test_what_is_still_open_at_the_end_of_the_grace_is_cut_off() -> None:
    there = InMemory(limits=LIMITS._replace(age_seconds=10, age_grace_seconds=5))
    there.ask(INFER, b"a")
    there.turn()
    there.after(11)
    there.after(14)
    with pytest.raises(Closed, match="age"):
        there.after(17)


def test_a_server_that_leaves_says_so_twice_and_only_once_each() -> None:
    there = InMemory()
    stream = there.ask(INFER, b"a")
    there.turn()
    for _ in range(2):
        there.connection.leave(now_ns(), "exit")
        there.turn()
    assert not there.client.connection.can_send_request, "the client has heard of it"
    for _ in range(2):
        there.connection.say_the_last()
        there.turn()
    assert [each.last_stream_id for each in there.went_away] == [2**31 - 1, stream]
    assert there.connection.answering
    there.asked[0][1].reply(b"answer")
    there.turn()
    assert there.answers[stream].messages == [b"answer"]
    assert not there.connection.answering


def test_a_client_that_leaves_with_nothing_open_is_let_go() -> None:
    there = InMemory()
    there.client.connection.send_goaway(0)
    there.turn()
    assert there.closed == ["left"]


def test_a_connection_that_is_lost_leaves_nothing_counted() -> None:
    there = InMemory(patient=True)
    read, asked = there.ask(INFER, b"a"), there.ask(INFER, end=False)
    there.ask(STREAM, b"b", end=False)
    there.send(asked, wire.framed(bytes(100))[:50])
    there.turn()
    there.asked[0][1].reply(bytes(200_000))
    there.turn()
    assert not there.nothing_left()
    assert there.traffic.unsent > 0
    there.connection.lost()
    assert there.nothing_left()
    for _, call in there.asked:
        call.fail(Code.INTERNAL, "too late for anybody")
    assert there.answers[read].data
