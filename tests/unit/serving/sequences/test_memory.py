"""What is remembered of sequences that have ended, and for how long."""

from __future__ import annotations

import pytest

from serving.sequences import memory
from serving.sequences.memory import Gone, Memory, Tomb
from serving.sequences.records import Kept

KEY, OTHER = ("", 1), ("", 2)
TOMBSTONE_NS = 60


def gone(at_ns: int = 0, reason: str = "idle") -> Gone:
    return Gone(reason, at_ns, epoch=5, taken=3, version="1")


def tomb(at_ns: int = 0) -> Tomb:
    return Tomb(gone(at_ns, "end"), b"nonce", (Kept.of(2, b"digest", b"", b""),))


def test_the_last_end_is_told() -> None:
    kept = Memory()
    assert kept.find(KEY) is None
    kept.ended(KEY, gone(1))
    kept.ended(KEY, gone(2, "evicted"))
    assert kept.find(KEY) == gone(2, "evicted")
    assert kept.find(OTHER) is None


@pytest.mark.parametrize(
    ("now_ns", "there"), [(59, True), (60, False)], ids=["before its time is up", "when its time is up"]
)
def test_a_tombstone_stands_for_so_long(now_ns: int, there: bool) -> None:
    kept = Memory()
    kept.ended(KEY, tomb().gone)
    kept.keep(KEY, tomb(), 10)
    assert (kept.tomb(KEY, now_ns, TOMBSTONE_NS) is not None) == there
    kept.forget(now_ns, TOMBSTONE_NS)
    assert (kept.tomb(KEY, 0, TOMBSTONE_NS) is not None) == there, "forgotten, whatever the time is"
    assert kept.find(KEY), "why it has ended is known for longer"


def test_what_lives_anew_has_no_tombstone_and_what_lives_elsewhere_keeps_that_of_another_epoch() -> None:
    for anew in (True, False):
        kept = Memory()
        kept.keep(KEY, tomb(), 10)
        kept.ended(KEY, gone())
        kept.lives(KEY, anew=anew)
        assert (kept.tomb(KEY, 0, TOMBSTONE_NS) is None) == anew


def test_the_oldest_is_forgotten_first(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "MOST_REMEMBERED", 2)
    kept = Memory()
    keys = [("", n) for n in range(4)]
    for at_ns, key in enumerate(keys):
        kept.ended(key, gone(at_ns))
        kept.keep(key, tomb(at_ns), 3)
    assert [key for key in keys if kept.find(key) == gone(key[1])] == keys[2:]
    assert [key for key in keys if kept.tomb(key, 0, TOMBSTONE_NS)] == keys[1:]


def test_it_says_when_something_is_to_be_forgotten() -> None:
    kept = Memory()
    assert kept.next_ns(TOMBSTONE_NS) == []
    kept.ended(KEY, gone(5))
    kept.keep(KEY, tomb(5), 10)
    assert kept.next_ns(TOMBSTONE_NS) == [65, memory.REMEMBERED_NS + 5]
    kept.forget(65, TOMBSTONE_NS)
    assert kept.next_ns(TOMBSTONE_NS) == [memory.REMEMBERED_NS + 5]
    kept.forget(memory.REMEMBERED_NS + 5, TOMBSTONE_NS)
    assert kept.next_ns(TOMBSTONE_NS) == []
    assert kept.find(KEY) is None
