"""The loop with something that speaks nothing in particular: pieces, fairness, last bytes, time-outs, what fails.

Most of it is driven turn by turn from the test's own thread; only what other threads do to it needs one of its own.
"""

from __future__ import annotations

import logging
import queue
import select
import socket
import ssl
import threading
from collections.abc import Callable, Iterator

import pytest
import trustme

from serving.edge import sockets
from serving.edge.links import Closed, Encryption, Link, Speaker, Timeouts
from serving.edge.sockets import CLOSING_NS, EXIT_CODE, READ_BYTES, SLICE_BYTES, Loop
from serving.errors import StartupError
from serving.telemetry.timeline import now_ns

HOST = "127.0.0.1"
SECOND = 10**9
LARGE = 8 * 1024 * 1024  # more than the buffers between two sockets hold
WAIT_SECONDS = 20


class Toy:
    """Keeps what it is given, says what it is told to say, and fails where the test wants."""

    def __init__(self, link: Link) -> None:
        self.link = link
        self.pieces: list[bytes] = []
        self.says: list[bytes] = []
        self.enough_after = 10**9  # pieces that it wants in a turn
        self.fails: dict[str, Exception] = {}
        self.ticks = self.losses = self.sent = 0

    def _may_fail(self, where: str) -> None:
        if where in self.fails:
            raise self.fails.pop(where)

    def receive(self, data: memoryview) -> bool:
        self.pieces.append(bytes(data))
        self._may_fail("receive")
        return len(self.pieces) % self.enough_after != 0

    def output(self) -> bytes:
        self._may_fail("output")
        return self.says.pop(0) if self.says else b""

    def sent_all(self) -> None:
        self.sent += 1
        self._may_fail("sent_all")

    def tick(self, now: int) -> None:
        self.ticks += 1
        self._may_fail("tick")

    def lost(self) -> None:
        self.losses += 1

    @property
    def received(self) -> bytes:
        return b"".join(self.pieces)


class Stepped:
    """A loop whose turns the test takes. `turns` counts how often it was asked to hand up."""

    def __init__(self, most: int = 100, encryption: Encryption | None = None, first_bytes: int = 1) -> None:
        self.toys: list[Toy] = []
        self.turns = 0
        self._first_bytes = first_bytes
        self._clients: list[socket.socket] = []
        self.loop = Loop(
            HOST,
            0,
            self._speak,
            self._turn,
            encryption=encryption,
            most=most,
            timeouts=Timeouts(handshake=10, stalled=60),
        )

    def _speak(self, link: Link, first: bytes) -> Speaker | None:
        if len(first) < self._first_bytes:
            return None
        self.toys.append(Toy(link))
        return self.toys[-1]

    def _turn(self) -> None:
        self.turns += 1

    def client(self, first: bytes = b"") -> socket.socket:
        """A new connection, accepted, and what it says first, received."""
        made = socket.create_connection((HOST, self.loop.port))
        made.settimeout(WAIT_SECONDS)
        self._clients.append(made)
        self.once()
        if first:
            made.sendall(first)
            self.once()
        return made

    def toy(self, first: bytes = b"hello") -> tuple[socket.socket, Toy]:
        """A new connection and who speaks on it."""
        made = self.client(first)
        return made, self.toys[-1]

    def once(self) -> None:
        """One turn of the loop, which waits for something to happen."""
        self.loop._once()

    def until(self, condition: Callable[[], bool]) -> int:
        """Turns until it holds; how many."""
        count = 0
        while not condition():
            self.once()
            count += 1
            assert count < 10_000, "it never came true"
        return count

    def tick(self, seconds: float) -> None:
        """What the loop does when so many seconds have passed."""
        self.loop._tick(now_ns() + int(seconds * SECOND))

    def read_all(self, client: socket.socket) -> bytes:
        """Takes turns until the client, on a thread of its own, has read everything that it is sent."""
        got: list[bytes] = []

        def read() -> None:
            while data := client.recv(1 << 20):
                got.append(data)
            got.append(b"")
            self.loop.post(lambda _: None)  # which ends the last turn

        reading = threading.Thread(target=read)
        reading.start()
        self.until(lambda: b"" in got)
        reading.join()
        return b"".join(got)

    def close(self) -> None:
        self.loop.end()
        self.loop.start()
        assert self.loop.join(WAIT_SECONDS)
        for each in self._clients:
            each.close()


@pytest.fixture
def stepped() -> Iterator[Stepped]:
    made = Stepped()
    yield made
    made.close()


# Pieces and fairness.


def test_what_comes_is_given_to_whoever_speaks_and_what_it_says_goes_out(stepped: Stepped) -> None:
    client, toy = stepped.toy(b"ping")
    assert toy.received == b"ping"
    toy.says += [b"po", b"ng"]
    toy.link.flush()
    stepped.once()
    assert client.recv(4, socket.MSG_WAITALL) == b"pong"
    assert toy.sent > 0


def test_no_client_keeps_the_loop_for_itself(stepped: Stepped) -> None:
    """One sends without end, and another one's few bytes are there after the next turn."""
    greedy, toy = stepped.toy(b"x")
    modest, other = stepped.toy(b"y")
    sending = threading.Thread(target=greedy.sendall, args=(bytes(LARGE),))
    sending.start()
    longest = 0
    while len(toy.received) <= LARGE:
        before, seen = len(toy.received), len(other.received)
        modest.sendall(b"z")
        stepped.once()
        stepped.once()
        longest = max(longest, len(toy.received) - before)
        assert len(other.received) == seen + 1
    sending.join()
    assert 0 < longest <= 2 * READ_BYTES


def test_a_turn_looks_at_small_pieces_until_the_speaker_has_enough(stepped: Stepped) -> None:
    client, toy = stepped.toy(b"x")
    toy.pieces.clear()
    toy.enough_after = 3
    sent = bytes(range(256)) * 128
    client.sendall(sent)
    turns = stepped.until(lambda: len(toy.received) == len(sent))
    assert toy.received == sent, "nothing is lost of what was read and not looked at"
    assert max(map(len, toy.pieces)) <= SLICE_BYTES
    assert turns >= len(sent) / (3 * SLICE_BYTES) - 1


def test_the_first_bytes_are_kept_until_it_is_seen_who_speaks() -> None:
    stepped = Stepped(first_bytes=10)
    client = stepped.client(b"12345")
    assert stepped.toys == []
    client.sendall(b"67890more")
    stepped.until(lambda: bool(stepped.toys))
    assert stepped.toys[0].received == b"1234567890more"
    stepped.close()


# Sending.


def test_more_than_a_socket_holds_goes_out_as_the_client_reads(stepped: Stepped) -> None:
    client, toy = stepped.toy()
    other, _ = stepped.toy()
    toy.says += [bytes(LARGE)]
    toy.link.flush()
    stepped.once()
    assert toy.link.unsent is not None
    assert toy.link.events == select.EPOLLIN | select.EPOLLOUT
    other.sendall(b"still served")
    stepped.until(lambda: stepped.toys[1].received == b"hellostill served")
    stepped.loop.close(toy.link, "exit")
    assert len(stepped.read_all(client)) == LARGE
    assert toy.link.unsent is None
    assert toy.link.events == select.EPOLLIN, "nobody is woken because there is room"


def test_who_does_not_read_is_dropped_after_a_while(stepped: Stepped) -> None:
    _, toy = stepped.toy()
    toy.says += [bytes(LARGE)]
    toy.link.flush()
    stepped.once()
    stepped.tick(59)
    assert toy.losses == 0
    stepped.tick(61)
    assert toy.losses == 1
    assert stepped.loop.counts.closed["not_reading"] == 1
    assert stepped.loop.counts.open == 0


# Ends.


@pytest.mark.parametrize("where", ["receive", "tick"])
def test_the_last_bytes_go_out_before_the_end(where: str, stepped: Stepped) -> None:
    client, toy = stepped.toy()
    toy.says += [bytes(LARGE), b"goodbye"]
    toy.fails[where] = Closed("flood")
    if where == "receive":
        client.sendall(b"the last straw")
        stepped.once()
    else:
        stepped.tick(0)
    assert stepped.read_all(client) == bytes(LARGE) + b"goodbye"
    assert stepped.loop.counts.closed["flood"] == 1
    client.sendall(b"not looked at any more")
    client.close()
    stepped.until(lambda: toy.losses == 1)
    assert b"not looked at" not in toy.received
    assert stepped.loop.counts.closed["flood"] == 1


def test_who_does_not_go_after_the_last_bytes_is_dropped(stepped: Stepped) -> None:
    _, toy = stepped.toy()
    stepped.loop.close(toy.link, "age")
    stepped.loop.close(toy.link, "exit")  # which it has been told already
    stepped.once()
    stepped.tick(CLOSING_NS / SECOND - 1)
    assert toy.losses == 0
    stepped.tick(CLOSING_NS / SECOND + 1)
    assert toy.losses == 1
    assert toy.ticks == 0, "nobody is asked any more"
    assert (stepped.loop.counts.closed["age"], stepped.loop.counts.closed["exit"]) == (1, 0)


def test_a_client_that_goes_is_lost_once(stepped: Stepped) -> None:
    client, toy = stepped.toy()
    client.close()
    stepped.until(lambda: toy.losses > 0)
    stepped.loop.drop(toy.link)
    stepped.loop.close(toy.link, "exit")
    toy.link.flush()
    stepped.loop.post(lambda _: None)
    stepped.once()
    assert toy.losses == 1
    assert stepped.loop.counts.open == 0
    assert sum(stepped.loop.counts.closed.values()) == 0, "we have not closed it"


def test_a_client_that_resets_its_connection_is_lost(stepped: Stepped) -> None:
    client, toy = stepped.toy()
    client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
    client.close()
    toy.says += [b"to nobody"]
    toy.link.flush()
    stepped.until(lambda: toy.losses == 1)


def test_the_end_of_the_loop_loses_every_connection() -> None:
    stepped = Stepped()
    clients = [stepped.client(b"hello") for _ in range(3)]
    stepped.client()
    assert stepped.loop.counts.open == 4
    stepped.close()
    assert [toy.losses for toy in stepped.toys] == [1, 1, 1]
    assert stepped.loop.counts.open == 0
    assert all(each.fileno() == -1 for each in clients)
    stepped.loop.post(lambda _: None)  # too late, which is no error


# Who is let in.


def test_no_more_connections_are_let_in_than_are_allowed() -> None:
    stepped = Stepped(most=2)
    first = stepped.client(b"hello")
    stepped.client(b"hello")
    third = stepped.client()
    assert third.recv(1) == b""
    assert (stepped.loop.counts.open, stepped.loop.counts.accepted) == (2, 3)
    assert stepped.loop.counts.closed["too_many_connections"] == 1
    first.close()
    stepped.until(lambda: stepped.loop.counts.open == 1)
    stepped.client(b"hello")
    assert stepped.loop.counts.open == 2
    stepped.close()


def test_who_says_nothing_is_dropped_and_who_has_said_something_is_not(stepped: Stepped) -> None:
    silent = stepped.client()
    _, toy = stepped.toy()
    stepped.tick(9)
    assert stepped.loop.counts.open == 2
    stepped.tick(11)
    assert silent.recv(1) == b""
    assert stepped.loop.counts.closed["handshake_timeout"] == 1
    assert (toy.ticks, toy.losses) == (2, 0)


def test_a_closed_listener_lets_nobody_in_and_keeps_who_is_there(stepped: Stepped) -> None:
    client, toy = stepped.toy()
    stepped.loop.close_listener()
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection((HOST, stepped.loop.port))
    client.sendall(b" again")
    stepped.until(lambda: toy.received == b"hello again")


def test_a_taken_port_leaves_nothing_open(stepped: Stepped) -> None:
    with pytest.raises(StartupError, match="cannot be bound"):
        Loop(HOST, stepped.loop.port, lambda _l, _f: None, lambda: None, most=1, timeouts=Timeouts())


# What fails.


@pytest.mark.parametrize("where", ["receive", "output", "sent_all", "tick"])
def test_a_fault_on_one_connection_is_told_and_the_others_go_on(
    where: str, stepped: Stepped, caplog: pytest.LogCaptureFixture
) -> None:
    client, toy = stepped.toy()
    other, still = stepped.toy()
    toy.fails[where] = ZeroDivisionError()
    client.sendall(b"more")
    stepped.until(lambda: toy.received == b"hellomore")
    stepped.tick(0)
    assert toy.losses == 1
    assert client.recv(1) == b""
    assert stepped.loop.counts.closed["failure"] == 1
    (record,) = caplog.records
    assert record.levelno == logging.ERROR
    assert record.exc_info
    assert record.exc_info[0] is ZeroDivisionError
    other.sendall(b" again")
    stepped.until(lambda: still.received == b"hello again")


def test_a_fault_in_what_was_posted_holds_up_nothing_else(stepped: Stepped, caplog: pytest.LogCaptureFixture) -> None:
    done: list[int] = []
    stepped.loop.post(lambda _: 1 // 0)
    stepped.loop.post(done.append, 2)
    stepped.once()
    assert done == [2]
    assert len(caplog.records) == 1


def test_a_fault_of_the_loop_itself_ends_the_process(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A server that listens and never answers is worse than none."""
    exits: list[int] = []
    monkeypatch.setattr(sockets.os, "_exit", exits.append)

    def fails(_: Loop) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(Loop, "_take_turn", fails)
    loop = Loop(HOST, 0, lambda _link, _first: None, lambda: None, most=1, timeouts=Timeouts())
    loop.post(lambda _: None)
    loop.start()
    assert loop.join(WAIT_SECONDS)
    assert exits == [EXIT_CODE]
    assert [record.levelno for record in caplog.records] == [logging.CRITICAL]
    assert not loop.alive


def test_a_turn_that_fails_is_told_and_the_next_one_is_taken(caplog: pytest.LogCaptureFixture) -> None:
    turns: list[int] = []

    def turn() -> None:
        turns.append(1)
        if len(turns) == 1:
            raise ZeroDivisionError

    loop = Loop(HOST, 0, lambda _link, _first: None, turn, most=1, timeouts=Timeouts())
    loop.post(lambda _: loop.end())
    loop.start()
    assert loop.join(WAIT_SECONDS)
    assert len(turns) == 2
    assert [record.levelno for record in caplog.records] == [logging.ERROR]


# Other threads.


def test_what_other_threads_post_is_done_on_the_thread_of_the_loop_in_their_order() -> None:
    stepped, count = Stepped(), 2000
    done: list[tuple[int, int]] = []
    where: set[str] = set()
    ended = queue.SimpleQueue[int]()

    def note(each: tuple[int, int]) -> None:
        done.append(each)
        where.add(threading.current_thread().name)

    def post(number: int) -> None:
        for place in range(0, count, 4):
            stepped.loop.post(note, (number, place))
            stepped.loop.post_all([(note, (number, place + more)) for more in (1, 2, 3)])
        stepped.loop.post(ended.put, number)

    stepped.loop.start()
    threads = [threading.Thread(target=post, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    assert sorted(ended.get(timeout=WAIT_SECONDS) for _ in threads) == [0, 1, 2, 3]
    for number in range(4):
        assert [place for whose, place in done if whose == number] == list(range(count))
    assert where == {"edge"}
    for _ in range(50):  # each is slept for
        stepped.loop.post(ended.put, 4)
        assert ended.get(timeout=WAIT_SECONDS) == 4
    stepped.loop.post(lambda _: stepped.loop.end())
    assert stepped.loop.join(WAIT_SECONDS)
    for thread in threads:
        thread.join()


def test_what_an_action_posts_is_done_in_the_next_turn(stepped: Stepped) -> None:
    """Else one that posts itself would keep the loop for itself."""
    done: list[int] = []

    def again(number: int) -> None:
        done.append(number)
        stepped.loop.post(again, number + 1)

    stepped.loop.post(again, 0)
    for expected in range(1, 4):
        stepped.once()
        assert len(done) == expected


def test_every_turn_hands_up_before_anything_is_sent(stepped: Stepped) -> None:
    order: list[str] = []
    client, toy = stepped.toy()
    stepped.loop._turn = lambda: order.append("handed up")
    receive, output = toy.receive, toy.output
    toy.receive = lambda data: (order.append("received"), receive(data))[1]  # type: ignore[method-assign]
    toy.output = lambda: (order.append("sent"), output())[1]  # type: ignore[method-assign]
    client.sendall(b"more")
    stepped.until(lambda: "received" in order)
    begins = order.index("received")
    assert order[begins : begins + 3] == ["received", "handed up", "sent"]


# TLS.


class Context:
    """See `serving.edge.links.Encryption`."""

    def __init__(self, authority: trustme.CA) -> None:
        self._context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        authority.issue_cert("localhost").configure_cert(self._context)

    def context(self) -> ssl.SSLContext:
        return self._context


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture
def encrypted(authority: trustme.CA) -> Iterator[Stepped]:
    made = Stepped(encryption=Context(authority))
    yield made
    made.close()


def trusting(encrypted: Stepped, authority: trustme.CA) -> ssl.SSLSocket:
    """A client whose handshake is over."""
    context = ssl.create_default_context()
    authority.configure_trust(context)
    client, made = encrypted.client(), list[ssl.SSLSocket]()

    def shake() -> None:
        made.append(context.wrap_socket(client, server_hostname="localhost"))
        encrypted.loop.post(lambda _: None)

    shaking = threading.Thread(target=shake)
    shaking.start()
    encrypted.until(lambda: bool(made))
    shaking.join()
    encrypted._clients += made
    return made[0]


def test_bytes_are_the_same_under_tls(encrypted: Stepped, authority: trustme.CA) -> None:
    client = trusting(encrypted, authority)
    sent = bytes(range(256)) * 400  # of several records, some of which stay within the library
    client.sendall(sent)
    encrypted.until(lambda: bool(encrypted.toys) and encrypted.toys[0].received == sent)
    toy = encrypted.toys[0]
    toy.says += [sent]
    encrypted.loop.close(toy.link, "exit")
    assert encrypted.read_all(client) == sent


def test_plain_text_on_an_encrypted_port_is_let_go(encrypted: Stepped) -> None:
    client = encrypted.client(b"PRI * HTTP/2.0\r\n\r\n")
    assert encrypted.loop.counts.closed["not_tls"] == 1
    with pytest.raises(ConnectionResetError):  # since what it has said was not read
        client.recv(1)
    assert encrypted.loop.counts.open == 0


def test_a_handshake_that_fails_is_counted(encrypted: Stepped) -> None:
    encrypted.client(b"\x16\x03\x01\x00\x05hello")
    encrypted.until(lambda: encrypted.loop.counts.open == 0)
    assert encrypted.loop.counts.closed["handshake"] == 1


def test_a_handshake_that_is_not_ended_in_time_is_dropped(encrypted: Stepped) -> None:
    client = encrypted.client(b"\x16")
    encrypted.until(lambda: not next(iter(encrypted.loop.links.values())).handshaking)
    encrypted.tick(11)
    assert client.recv(1) == b""
    assert encrypted.loop.counts.closed["handshake_timeout"] == 1


def test_one_that_is_dropped_while_its_hand_is_shaken_is_closed_when_the_step_is_done(
    encrypted: Stepped, monkeypatch: pytest.MonkeyPatch
) -> None:
    steps: list[Link] = []
    monkeypatch.setattr(encrypted.loop._handshakes, "_step", steps.append)
    encrypted.client(b"\x16")
    (link,) = encrypted.loop.links.values()
    assert link.handshaking
    encrypted.tick(11)
    assert encrypted.loop.counts.open == 0
    assert link.sock.fileno() >= 0, "the step may be at work on it"
    encrypted.loop.post(encrypted.loop._stepped, (link, sockets.FAILED))
    encrypted.once()
    assert link.sock.fileno() == -1
