"""Handshakes, one step at a time and never on the thread of the loop."""

from __future__ import annotations

import contextlib
import queue
import select
import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple, cast

import pytest
import trustme

from serving.edge import handshakes
from serving.edge.handshakes import DONE, FAILED, Handshakes, holder_of
from serving.edge.links import Link, Owner

WAIT_SECONDS = 20


class OneContext:
    """Whoever is asked for the context of a connection, and from which thread."""

    def __init__(self, context: ssl.SSLContext) -> None:
        self._context = context
        self.threads: list[str] = []

    def context(self) -> ssl.SSLContext:
        self.threads.append(threading.current_thread().name)
        return self._context


class Shaking(NamedTuple):
    """A connection on both sides; `steps` has what each step waits for."""

    handshakes: Handshakes
    link: Link
    client: socket.socket
    steps: queue.SimpleQueue[int]
    asked: OneContext
    authority: trustme.CA

    def step(self) -> int:
        self.handshakes.step(self.link)
        assert self.link.handshaking
        return self.steps.get(timeout=WAIT_SECONDS)


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture
def shaking(authority: trustme.CA) -> Iterator[Shaking]:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("localhost").configure_cert(context)
    context.set_alpn_protocols(["h2"])
    steps, asked = queue.SimpleQueue[int](), OneContext(context)

    def post(stepped: Callable[[Any], None], step: tuple[Link, int]) -> None:
        stepped(step)

    made = Handshakes(asked, post, lambda step: steps.put(step[1]))
    client, server = socket.socketpair()
    server.setblocking(False)
    link = Link(cast(Owner, None), server, "127.0.0.1:9")
    yield Shaking(made, link, client, steps, asked, authority)
    made.close()
    client.close()
    link.sock.close()


def test_a_handshake_goes_on_whenever_the_client_has_sent_something(shaking: Shaking) -> None:
    assert shaking.step() == select.EPOLLIN, "the client has said nothing yet"
    context = ssl.create_default_context()
    shaking.authority.configure_trust(context)
    context.set_alpn_protocols(["h2"])
    into, out = ssl.MemoryBIO(), ssl.MemoryBIO()
    client = context.wrap_bio(into, out, server_hostname="localhost")
    awaited = select.EPOLLIN
    for _ in range(5):
        with contextlib.suppress(ssl.SSLWantReadError):
            client.do_handshake()
        if hello := out.read():
            shaking.client.sendall(hello)
        if awaited == DONE:
            break
        awaited = shaking.step()
        if awaited != FAILED:
            into.write(shaking.client.recv(100_000))
    assert awaited == DONE
    assert client.selected_alpn_protocol() == "h2"
    assert len(shaking.asked.threads) == 1, "the context is asked for once a connection, so that a renewed one is used"
    assert shaking.asked.threads[0].startswith("handshake")


@pytest.mark.parametrize("sent", [b"GET / HTTP/1.1\r\n\r\n", b"\x16\x03\x01\x00\x05hello"])
def test_what_is_no_handshake_fails(sent: bytes, shaking: Shaking) -> None:
    shaking.client.sendall(sent)
    assert shaking.step() == FAILED


def test_a_client_that_goes_within_it_fails(shaking: Shaking) -> None:
    assert shaking.step() == select.EPOLLIN
    shaking.client.close()
    assert shaking.step() == FAILED


@pytest.mark.parametrize(
    ("sent", "begins"),
    [(b"\x16\x03\x01", True), (b"\x16", True), (b"PRI * HTTP/2.0", False), (b"GET /", False), (None, None)],
    ids=["TLS", "its first byte", "HTTP/2", "HTTP/1.1", "gone"],
)
def test_a_handshake_is_told_from_plain_text_by_its_first_byte(
    sent: bytes | None, begins: bool | None, shaking: Shaking
) -> None:
    if sent is None:
        shaking.client.close()
    else:
        shaking.client.sendall(sent)
    assert handshakes.begins(shaking.link) is begins
    if sent:
        assert shaking.link.sock.recv(100) == sent, "nothing was taken of it"


def test_while_nothing_is_there_it_begins(shaking: Shaking) -> None:
    """Whatever comes is looked at by the first step."""
    assert handshakes.begins(shaking.link) is True


def test_a_client_is_who_its_certificate_names_whatever_it_names_him_by() -> None:
    subject = {"subject": ((("commonName", "ada"),),), "issuer": ((("commonName", "one"),),)}
    named = {"subject": (), "subjectAltName": (("URI", "spiffe://ada"),)}
    shown = [
        (subject, b"1"),
        ({**subject, "issuer": ((("commonName", "two"),),)}, b"1"),
        (named, b"1"),
        ({**named, "subjectAltName": (("URI", "spiffe://bob"),)}, b"1"),
        ({"subject": ()}, b"1"),
        ({"subject": ()}, b"2"),
    ]
    callers = [holder_of(*each) for each in shown]
    assert len(set(callers)) == len(shown), "nobody is taken for another one"
    assert all(each.startswith("certificate:") for each in callers)
    assert holder_of(subject, b"renewed") == callers[0]
    assert holder_of(None, None) == ""
