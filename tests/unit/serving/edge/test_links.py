"""What a connection says of itself to the loop, and what is counted of all."""

from __future__ import annotations

import re
import socket
from pathlib import Path

from serving.edge import links
from serving.edge.links import REASONS, Counts, Link


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
        link = Link(owner, sock)
        assert link.fd == sock.fileno()
        link.flush()
        link.flush()
        assert list(owner.dirty) == [link]
        link.close("age")
        assert owner.closed == [(link, "age")]


def test_every_reason_is_counted_from_0() -> None:
    counts = Counts()
    assert counts.closed == dict.fromkeys(REASONS, 0)
    counts.close("age")
    counts.close("age")
    assert counts.closed["age"] == 2
    assert sum(counts.closed.values()) == 2


def test_every_reason_that_the_room_gives_is_one_of_them() -> None:
    sources = Path(links.__file__).parent.glob("*.py")
    given = {
        reason
        for source in sources
        for reason in re.findall(r'(?:Closed|counts\.close|_?link\.close|leave)\((?:now, )?"(\w+)"', source.read_text())
    }
    assert given <= set(REASONS)
    assert len(given) > 5, "the pattern still finds them"
