"""Why nobody waits for an answer any more, and who is told when a client goes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar, cast

import pytest

from serving.batching.pending import Piece, finish_all, whole
from tests.support.gated import Answer

MS = 1_000_000
LATE = "Deadline Exceeded: waited 4.0 ms in the queue; nothing was computed"
GONE = "the client has cancelled the request"


@pytest.mark.parametrize(
    ("deadline_ms", "cancelled", "now_ms", "why"),
    [
        (None, False, 100, None),
        (6, False, 5, None),
        (5, False, 5, LATE),
        (None, True, 5, GONE),
        (56, True, 5, GONE),
        (55, True, 5, LATE),  # by its own clock, which was started before the request came here
        (5, True, 5, LATE),  # a client whose deadline has passed goes, too
    ],
)
def test_for_whom_nobody_waits(deadline_ms: int | None, cancelled: bool, now_ms: int, why: str | None) -> None:
    deadline_ns = None if deadline_ms is None else deadline_ms * MS
    pending = Answer(0, deadline_ns=deadline_ns, decoded_ns=1 * MS).pending
    pending.cancelled = cancelled
    found = pending.hopeless(now_ms * MS)
    assert (str(found) if found else None) == why


class Holder:
    """Where a request waits; counts how often it is asked to look again."""

    looks = 0

    def look_again(self) -> None:
        self.looks += 1


@pytest.mark.parametrize(("started", "looks"), [(0, 1), (5, 0)], ids=["it waits", "it is being computed"])
def test_whoever_holds_a_request_is_told_that_its_client_has_gone(started: int, looks: int) -> None:
    pending, holder = Answer(0).pending, Holder()
    pending.holder, pending.timeline.started = holder, started
    pending.cancel()
    assert pending.cancelled
    assert holder.looks == looks


def test_a_request_may_be_cancelled_before_anybody_holds_it() -> None:
    pending = Answer(0).pending
    pending.cancel()
    assert pending.cancelled


def test_all_of_a_request_is_one_piece() -> None:
    pending = Answer(0, rows=3, steps=7).pending
    assert whole(pending) == Piece(pending, 3, 7)


class Other(Answer):
    """A requester of another class; the batches that were finished of it are kept."""

    batches: ClassVar[list[list[Other]]] = []

    @staticmethod
    def finish_all(requesters: Sequence[Answer]) -> None:
        Other.batches.append(list(cast(Sequence[Other], requesters)))
        Answer.finish_all(requesters)


def test_requesters_of_a_batch_are_finished_together_class_by_class() -> None:
    Other.batches.clear()
    answer, *others = Answer(1), Other(2), Other(3), Other(4)
    finish_all([others[0], answer, others[1]])
    finish_all([others[2]])
    finish_all([])
    assert Other.batches == [others[:2], others[2:]]
    assert [each.wait() for each in (answer, *others)] == [None] * 4
