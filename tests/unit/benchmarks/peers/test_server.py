from __future__ import annotations

import itertools
from collections.abc import Iterator
from pathlib import Path

import pytest

from benchmarks.peers import server
from benchmarks.peers.errors import PeerError
from benchmarks.peers.server import OURS, Certificate, Server


@pytest.fixture(autouse=True)
def hurried(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "_REST_SECONDS", 0.0)


def at_rest(counts: Iterator[int | None]) -> int | None:
    return server._at_rest(lambda: next(counts))


@pytest.mark.parametrize(
    ("counts", "told"),
    [
        ([5, 5], 5),
        ([1107, 1108, 1108], 1108),
        ([1, 2, 4, 7, 7], 7),
        ([None], None),
    ],
)
def test_a_count_is_read_until_it_does_not_change(counts: list[int | None], told: int | None) -> None:
    left = iter(counts)
    assert at_rest(left) == told
    assert not list(left)


def test_a_server_that_never_stops_counting_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "_SECONDS", 0.0)
    with pytest.raises(PeerError, match="still counts requests"):
        at_rest(itertools.count())


def test_how_the_load_test_connects() -> None:
    files = Certificate(Path("chain"), Path("key"), Path("authority"))
    mutual = Certificate(files.chain, files.key, files.authority, mutual=True)
    plain = ["--url", "host:1"]
    trusting = [*plain, "--tls-ca", "authority"]
    assert Server(OURS, "host:1", 0).flags == plain
    assert Server(OURS, "host:1", 0, files).flags == trusting
    assert Server(OURS, "host:1", 0, mutual).flags == [*trusting, "--tls-cert", "chain", "--tls-key", "key"]
