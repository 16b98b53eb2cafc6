"""What a connection says of itself to the loop, and what is counted of all."""

from __future__ import annotations

import re
import socket
from pathlib import Path

import pytest

from serving.edge import links
from serving.edge.links import REASONS, TOLD, Counts, Link


class Owning:
    """A loop that notes what it is asked for."""

    def __init__(self) -> None:
        self.dirty: dict[Link, None] = {}
        self.closed: list[tuple[Link, str]] = []

    def close(self, link: Link, reason: str) -> None:
        self.closed.append((link, reason))


def test_what_a_connection_asks_of_its_loop() -> None:
    owner = Owning()
    with socket.socket() as sock:
        link = Link(owner, sock, "127.0.0.1:9")
        assert link.fd == sock.fileno()
        link.flush()
        link.flush()
        assert list(owner.dirty) == [link]
        link.close("age")
        assert owner.closed == [(link, "age")]


def test_every_reason_is_counted_from_0() -> None:
    counts = Counts()
    assert counts.closed == dict.fromkeys(REASONS, 0)
    counts.close("age", "127.0.0.1:9")
    counts.close("age", "127.0.0.1:9")
    assert counts.closed["age"] == 2
    assert sum(counts.closed.values()) == 2


def test_who_is_thrown_out_is_logged_and_a_crowd_of_them_is_not(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = 10**12
    monkeypatch.setattr(links, "now_ns", lambda: now)
    counts = Counts()
    for reason in REASONS:
        if reason not in TOLD:
            counts.close(reason, "10.0.0.1:1")
    assert not caplog.records
    for number in range(100):
        counts.close("flood", f"10.0.0.{number}:1", "too_many_pings")
    assert len(caplog.records) == links.TOLD_AT_ONCE
    assert caplog.records[0].message.startswith("a connection of 10.0.0.0:1 is closed, flood: its client began calls")
    assert caplog.records[0].message.endswith("(too_many_pings)")
    now += 10**12
    counts.close("handshake", "10.0.0.1:1")
    assert caplog.records[-1].message.endswith("; 90 more since were not told")
    assert counts.closed["flood"] == 100


def test_every_reason_that_the_room_gives_is_one_of_them() -> None:
    sources = Path(links.__file__).parent.glob("*.py")
    given = {
        reason
        for source in sources
        for reason in re.findall(
            r'(?:Closed|counts\.close|_?link\.close|cut_off|leave)\((?:now, |link, )?"(\w+)"', source.read_text()
        )
    }
    assert given <= set(REASONS)
    assert len(given) > 5, "the pattern still finds them"
