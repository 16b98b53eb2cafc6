"""Answers leave in the order of their requests, whoever is ready first."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

from serving.batching.ordering import Outbox
from serving.batching.pending import Pending, finish_all
from serving.batching.policy import BatchPolicy
from serving.batching.queue import Queue
from serving.errors import Cancelled, ComputeFailed, DeadlineExceeded, ServingError, TimedOut
from serving.signature.tensors import Tensors
from tests.support.gated import Answer
from tests.support.threads import HandClock, beside


class Client:
    """A request that says in `heard` what it hears; `asks` is done first when it is answered."""

    def __init__(self, number: int, heard: list[str], asks: Any = None) -> None:
        self.number, self.heard, self.asks = number, heard, asks
        self.pending = Answer(number, decoded_ns=0).pending
        self.pending.requester = self

    def encode(self, outputs: Tensors) -> None:
        self.heard.append(f"encode {self.number}")

    def finish(self, error: ServingError) -> None:
        self.heard.append(f"{type(error).__name__} {self.number}")

    @staticmethod
    def finish_all(requesters: Sequence[Client]) -> None:
        requesters[0].heard.append("answers " + " ".join(str(each.number) for each in requesters))
        for each in requesters:
            if each.asks:
                each.asks()

    def move(self, lease: object) -> None:
        self.heard.append(f"{lease} {self.number}")


def entered(many: int) -> tuple[list[Pending], list[str]]:
    heard: list[str] = []
    outbox, requests = Outbox(), [Client(number, heard).pending for number in range(many)]
    for pending in requests:
        outbox.enter(pending)
    return requests, heard


def answer(*requests: Pending) -> None:
    finish_all([pending.requester for pending in requests])


def test_an_answer_waits_for_all_before_it() -> None:
    (a, b, c, d), heard = entered(4)
    c.requester.encode({})
    assert heard == ["encode 2"]
    answer(b, c)
    assert heard == ["encode 2"]
    answer(a)
    assert heard[1:] == ["answers 0 1 2"]
    answer(d)
    assert heard[2:] == ["answers 3"]


def test_an_error_has_its_place_too() -> None:
    (a, b, c), heard = entered(3)
    answer(c)
    b.requester.finish(ComputeFailed("no"))
    assert heard == []
    answer(a)
    assert heard == ["answers 0", "ComputeFailed 1", "answers 2"]


@pytest.mark.parametrize("error", [Cancelled("c"), DeadlineExceeded("d"), TimedOut("t")])
def test_who_is_not_computed_leaves_at_once_and_holds_nobody_up(error: ServingError) -> None:
    (a, b, c), heard = entered(3)
    b.requester.finish(error)
    assert heard == [f"{type(error).__name__} 1"]
    answer(c)
    a.requester.finish(error)
    assert heard[1:] == ["answers 2", f"{type(error).__name__} 0"]


def test_who_is_answered_by_another_model_gives_its_place_up() -> None:
    (a, b), heard = entered(2)
    requester = a.requester
    answer(b)
    a.requester.move("lease")
    assert heard == ["answers 1", "lease 0"]
    assert a.requester is not requester
    answer(a)
    assert heard[2:] == ["answers 0"]


def test_who_is_handed_over_is_not_waited_for_while_another_model_is_loaded() -> None:
    heard: list[str] = []
    outbox, (a, b) = Outbox(), (Client(0, heard), Client(1, heard))
    for each in (a, b):
        outbox.enter(each.pending)
    answer(b.pending)
    outbox.give_up([a.pending])
    assert heard == ["answers 1"]
    assert a.pending.requester is a
    outbox.give_up([a.pending])  # nothing is left to give up
    answer(a.pending)
    assert heard == ["answers 1", "answers 0"]


def test_who_is_answered_while_another_thread_sends_does_not_overtake_it() -> None:
    heard: list[str] = []
    outbox = Outbox()

    def meanwhile() -> None:
        beside(lambda: answer(second.pending)).get(timeout=10)
        heard.append("still sending")

    first, second = Client(0, heard, meanwhile), Client(1, heard)
    for each in (first, second):
        outbox.enter(each.pending)
    answer(first.pending)
    assert heard == ["answers 0", "still sending", "answers 1"]


def test_the_queue_gives_the_places() -> None:
    heard: list[str] = []
    queue = Queue("m", BatchPolicy(keeps_order=True, dynamic=False), HandClock())
    queue.join()
    requests = [Client(number, heard).pending for number in range(2)]
    assert queue.offer_all(requests) == []
    first, second = queue.take(), queue.take()
    answer(*[piece.pending for piece in second])
    assert heard == []
    answer(*[piece.pending for piece in first])
    assert heard == ["answers 0 1"]
