"""gRPC's own encoding, both ways: what a client may send, and what it is told where it may not."""

from __future__ import annotations

import contextlib
import gc
import gzip
import itertools
import random
import tracemalloc
import zlib
from collections.abc import Callable, Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as some

from serving.edge import grpc_wire as wire
from serving.edge.grpc_wire import Inbox, Malformed, TooLarge
from serving.edge.status import MAX_DETAILS_BYTES
from serving.protocol.codes import Code

ENCODINGS = [b"gzip", b"deflate"]
MOST = 1000


@pytest.mark.parametrize(
    ("text", "nanoseconds"),
    [
        (b"1H", 3600 * 10**9),
        (b"2M", 120 * 10**9),
        (b"3S", 3 * 10**9),
        (b"4m", 4 * 10**6),
        (b"5u", 5000),
        (b"6n", 6),
        (b"0n", 0),
        (b"99999999H", 99_999_999 * 3600 * 10**9),
        (b"00000001S", 10**9),
    ],
)
def test_a_time_out_in_every_unit(text: bytes, nanoseconds: int) -> None:
    assert wire.timeout_ns(text) == nanoseconds


@pytest.mark.parametrize(
    "text",
    [b"", b"S", b"1", b"1s", b"1h", b"-1S", b"+1S", b" 1S", b"1 S", b"1.5S", b"1_0S", b"100000000n", b"1SS", b"\xb2S", b"\xff"],
)  # fmt: skip
def test_what_is_no_time_out_is_told_with_what_one_is(text: bytes) -> None:
    with pytest.raises(Malformed, match="it must be 1 to 8 digits and one of H, M, S, m, u, n"):
        wire.timeout_ns(text)


def test_of_a_long_time_out_the_beginning_is_told() -> None:
    with pytest.raises(Malformed) as told:
        wire.timeout_ns(b"9" * 10_000)
    assert len(str(told.value)) < 200


@pytest.mark.parametrize(
    ("length", "compressed", "prefix"),
    [(0, False, b"\0\0\0\0\0"), (1, True, b"\1\0\0\0\1"), (0x01020304, False, b"\0\1\2\3\4")],
)
def test_before_a_message_stand_a_flag_and_its_length(length: int, compressed: bool, prefix: bytes) -> None:
    assert wire.prefix(length, compressed=compressed) == prefix


def test_a_framed_message_is_the_prefix_and_the_message() -> None:
    assert wire.framed(b"abc") == b"\0\0\0\0\3abc"
    assert wire.framed(b"abc", compressed=True) == b"\1\0\0\0\3abc"


@pytest.mark.parametrize("encoding", ENCODINGS)
@pytest.mark.parametrize("payload", [b"", b"a", bytes(MOST), bytes(range(256)) * 3], ids=len)
def test_what_was_compressed_comes_back(encoding: bytes, payload: bytes) -> None:
    assert wire.decompress(encoding, wire.compress(encoding, payload), MOST) == payload


def test_others_read_what_we_compress_and_we_read_theirs() -> None:
    payload = bytes(500)
    assert gzip.decompress(wire.compress(b"gzip", payload)) == payload
    assert zlib.decompress(wire.compress(b"deflate", payload)) == payload
    assert wire.decompress(b"gzip", gzip.compress(payload), MOST) == payload
    assert wire.decompress(b"deflate", zlib.compress(payload), MOST) == payload


@pytest.mark.parametrize("encoding", ENCODINGS)
@pytest.mark.parametrize("size", [wire.PIECE_BYTES - 1, wire.PIECE_BYTES, wire.PIECE_BYTES + 1, 5 * wire.PIECE_BYTES])
@pytest.mark.parametrize("kind", ["zeros", "noise", "both"])
def test_what_is_unpacked_piece_by_piece_is_whole(encoding: bytes, size: int, kind: str) -> None:
    noise = random.Random(size).randbytes(size)
    payload = {"zeros": bytes(size), "noise": noise, "both": bytes(size) + noise}[kind]
    packed = wire.compress(encoding, payload)
    assert wire.decompress(encoding, packed, len(payload)) == payload
    with pytest.raises(TooLarge):
        wire.decompress(encoding, packed, len(payload) - 1)
    with pytest.raises(Malformed, match="not one whole piece"):
        wire.decompress(encoding, packed[:-1], len(payload))
    with pytest.raises(Malformed, match="not one whole piece"):
        wire.decompress(encoding, packed + bytes(wire.PIECE_BYTES), len(payload))


@pytest.mark.parametrize("encoding", ENCODINGS)
@pytest.mark.parametrize("size", [MOST + 1, 50_000_000])
def test_a_bomb_is_not_unpacked(encoding: bytes, size: int) -> None:
    bomb = wire.compress(encoding, bytes(size))
    with pytest.raises(TooLarge, match="larger than 1000 bytes when it is unpacked; --max-message-bytes"):
        wire.decompress(encoding, bomb, MOST)


@pytest.mark.parametrize("encoding", ENCODINGS)
@pytest.mark.parametrize(
    ("damage", "told"),
    [
        (lambda packed: b"", "not one whole piece"),
        (lambda packed: packed[:-1], "not one whole piece"),
        (lambda packed: packed[:3], "not one whole piece"),
        (lambda packed: packed + b"more", "not one whole piece"),
        (lambda packed: packed + packed, "not one whole piece"),
        (lambda packed: b"\xff" + packed[1:], "is no (gzip|deflate)"),
        (lambda packed: packed[:-1] + bytes([packed[-1] ^ 1]), "is no (gzip|deflate)"),
    ],
    ids=["nothing", "a byte too few", "the beginning", "more behind it", "twice", "another kind", "another checksum"],
)
def test_what_is_no_whole_piece_is_told_so(encoding: bytes, damage: object, told: str) -> None:
    packed = damage(wire.compress(encoding, b"some bytes"))  # type: ignore[operator]
    with pytest.raises(Malformed, match=told):
        wire.decompress(encoding, packed, MOST)


@pytest.mark.parametrize("encoding", [b"identity", b"", b"br"])
def test_a_flag_without_an_encoding_is_told_so(encoding: bytes) -> None:
    with pytest.raises(Malformed, match="grpc-encoding does not say how"):
        wire.decompress(encoding, b"", MOST)


@pytest.mark.parametrize(
    ("message", "travels"),
    [
        ("", b""),
        ("plain: ~!", b"plain: ~!"),
        ("100%", b"100%25"),
        ("\t\r\n\0", b"%09%0D%0A%00"),
        ("é☺", b"%C3%A9%E2%98%BA"),
        ("\x7f", b"%7F"),
        ("no text: \udcff", b"no text: ?"),
    ],
)
def test_a_message_travels_percent_encoded(message: str, travels: bytes) -> None:
    assert wire.percent_encoded(message) == travels


@given(some.text())
def test_every_message_travels_in_printable_ascii_and_is_bounded(message: str) -> None:
    travels = wire.percent_encoded(message)
    assert all(0x20 <= byte < 0x7F for byte in travels)
    assert len(wire.percent_encoded(message * 2000)) <= 3 * (MAX_DETAILS_BYTES + 3)


@pytest.mark.parametrize(
    ("code", "message", "trailers"),
    [
        (Code.OK, "", ((b"grpc-status", b"0"),)),
        (Code.UNAVAILABLE, "", ((b"grpc-status", b"14"),)),
        (Code.NOT_FOUND, "é", ((b"grpc-status", b"5"), (b"grpc-message", b"%C3%A9"))),
    ],
)
def test_how_a_call_ends(code: Code, message: str, trailers: wire.Headers) -> None:
    assert wire.ending(code, message) == trailers


MESSAGES = some.lists(some.tuples(some.integers(0, 255), some.binary(max_size=20)), max_size=6)


@given(MESSAGES, some.lists(some.integers(0, 200), max_size=12), some.lists(some.booleans(), max_size=20))
def test_messages_in_whatever_pieces_they_come(
    messages: list[tuple[int, bytes]], cuts: list[int], looks: list[bool]
) -> None:
    """Each is there as soon as its last byte is, whether or not it is taken at once."""
    sent = b"".join(bytes([flag]) + len(payload).to_bytes(4, "big") + payload for flag, payload in messages)
    places = sorted({0, len(sent), *(cut for cut in cuts if cut < len(sent))})
    inbox, taken, came = Inbox(), list[tuple[int, bytes]](), 0
    for number, (begin, end) in enumerate(itertools.pairwise(places)):
        inbox.add(sent[begin:end])
        came = end
        if number < len(looks) and not looks[number]:
            continue
        while message := inbox.next():
            taken.append(message)
        used = sum(wire.PREFIX_BYTES + len(payload) for _, payload in taken)
        assert inbox.held == came - used
        assert taken == messages[: len(taken)]
        if len(taken) < len(messages):
            assert came < used + wire.PREFIX_BYTES + len(messages[len(taken)][1])
    while message := inbox.next():
        taken.append(message)
    assert taken == messages
    assert not inbox.whole
    assert inbox.held == 0


@given(MESSAGES, some.lists(some.integers(0, 200), max_size=12), some.lists(some.booleans(), max_size=30))
def test_parts_of_messages_are_what_they_are_when_joined(
    messages: list[tuple[int, bytes]], cuts: list[int], in_parts: list[bool]
) -> None:
    """However many have come at once, and whichever are taken in parts."""
    sent = b"".join(bytes([flag]) + len(payload).to_bytes(4, "big") + payload for flag, payload in messages)
    places = sorted({0, len(sent), *(cut for cut in cuts if cut < len(sent))})
    inbox, taken = Inbox(), list[tuple[int, bytes]]()
    for number, (begin, end) in enumerate(itertools.pairwise(places)):
        inbox.add(sent[begin:end])
        if number % 2 and end < len(sent):
            continue
        while inbox.whole:
            if len(taken) < len(in_parts) and in_parts[len(taken)]:
                flag, parts = inbox.next_in_parts()
                taken.append((flag, b"".join(parts)))
            elif message := inbox.next():
                taken.append(message)
        assert inbox.held == end - sum(wire.PREFIX_BYTES + len(payload) for _, payload in taken)
    assert taken == messages
    assert inbox.held == 0


@pytest.mark.parametrize(
    ("came", "needed", "whole"),
    [
        (b"", 0, False),
        (b"\0\0\0\0", 0, False),
        (b"\0\0\0\0\0", 5, True),
        (b"\0\0\0\0\2", 7, False),
        (b"\0\0\0\0\2a", 7, False),
        (b"\0\0\0\0\2ab", 7, True),
        (b"\0\0\0\0\2abc", 7, True),
        (b"\0\xff\xff\xff\xff", 2**32 + 4, False),
    ],
)
def test_what_an_inbox_waits_for(came: bytes, needed: int, whole: bool) -> None:
    inbox = Inbox()
    for byte in came:
        inbox.add(bytes([byte]))
    assert (inbox.needed, inbox.whole, inbox.held) == (needed, whole, len(came))
    assert (inbox.next() is None) == (not whole)


def test_a_cleared_inbox_begins_anew() -> None:
    inbox = Inbox()
    inbox.add(b"\0\0\0\0\2ab\0\0\0\0\7half")
    assert inbox.next() == (0, b"ab")
    assert inbox.needed == 12
    inbox.clear()
    assert (inbox.held, inbox.needed, inbox.next()) == (0, 0, None)
    inbox.add(wire.framed(b"new"))
    assert inbox.next() == (0, b"new")


class CountedInbox(Inbox):
    """Counts the bytes that are copied to be together."""

    copied = 0

    def _together(self, count: int) -> int:
        before = self._buffer
        at = super()._together(count)
        if self._buffer is not before:
            self.copied += len(self._buffer)
        return at


@pytest.mark.parametrize("piece", [1, 7, 1000, 16_384])
@pytest.mark.parametrize("size", [0, 1, 2000, 100_000])
@pytest.mark.parametrize(
    "at_once", [10**9, 1, 0], ids=["all that is there", "one for each piece", "none before the end"]
)
def test_every_byte_is_joined_a_few_times_however_many_pieces_there_are(piece: int, size: int, at_once: int) -> None:
    """`buffer + data` would copy a message of a thousand pieces five hundred times over."""
    count = max(1, 200_000 // (size + 100))
    sent = wire.framed(bytes(size)) * count
    inbox, taken = CountedInbox(), 0
    for begin in range(0, len(sent), piece):
        inbox.add(sent[begin : begin + piece])
        assert inbox.needed >= 0
        left = at_once
        while left and inbox.next():
            taken += 1
            left -= 1
    while inbox.next():
        taken += 1
    assert taken == count
    assert inbox.copied <= 3 * len(sent)


@contextlib.contextmanager
def allocated() -> Iterator[Callable[[], tuple[int, int]]]:
    """Bytes that are allocated now and that were at most, since this was entered."""
    gc.collect()
    tracemalloc.start()
    try:
        yield tracemalloc.get_traced_memory
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_of_a_bomb_no_more_is_unpacked_than_tells_that_it_is_one(encoding: bytes) -> None:
    bomb = wire.compress(encoding, bytes(50_000_000))
    with allocated() as now_and_most:
        with pytest.raises(TooLarge):
            wire.decompress(encoding, bomb, MOST)
        assert now_and_most()[1] < 2_000_000


def test_an_inbox_that_is_empty_holds_nothing() -> None:
    inbox = Inbox()
    with allocated() as now_and_most:
        inbox.add(wire.framed(bytes(10_000_000)))
        assert inbox.next() == (0, bytes(10_000_000))
        assert now_and_most()[0] < 1_000_000
