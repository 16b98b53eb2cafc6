"""Answers in the order of their requests, whatever was computed first: `preserve_ordering`.

Each request gets a place when it comes into the queue, and its answer waits until all before it have left. Nobody else
knows: what stands between queue and requester is a requester itself. One that nobody waits for, or whose time is up, leaves at
once, and one that another model will answer gives its place up.
"""

from __future__ import annotations

import collections
import threading
from collections.abc import Sequence
from typing import Any

from serving.batching.pending import Pending, Requester, finish_all
from serving.errors import Cancelled, DeadlineExceeded, ServingError, TimedOut
from serving.signature.tensors import Tensors

AT_ONCE = (Cancelled, DeadlineExceeded, TimedOut)


class Outbox:
    """The answers of one queue that have not left. Called from any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()  # guards what follows
        self._places: collections.deque[_Place] = collections.deque()
        self._sending = False

    def enter(self, pending: Pending) -> None:
        """The request takes the place behind all that have come."""
        place = _Place(self, pending)
        pending.requester = place
        with self._lock:
            self._places.append(place)

    def give_up(self, requests: Sequence[Pending]) -> None:
        """Nobody waits for these any more: they will be answered elsewhere."""
        for pending in requests:
            if isinstance(pending.requester, _Place):
                pending.requester = pending.requester.given_up()

    def over(self, places: Sequence[_Place], error: ServingError | None = None) -> None:
        """These have their answers, or the one its error, or need their place no more. Sends whatever can leave now."""
        with self._lock:
            for place in places:
                place.error, place.over = error, True
            if self._sending:  # who sends sees to these as well, so that nobody overtakes it
                return
            self._sending = True
        while ready := self._ready():
            _send(ready)

    def _ready(self) -> list[_Place]:
        """Those that can leave, in order; when there are none nobody sends any more."""
        ready = []
        with self._lock:
            while self._places and self._places[0].over:
                ready.append(self._places.popleft())
            self._sending = bool(ready)
        return ready


class _Place:
    """The place of one request; see `batching.pending.Requester`."""

    __slots__ = ("_outbox", "_pending", "error", "over", "requester")

    def __init__(self, outbox: Outbox, pending: Pending) -> None:
        self._outbox = outbox
        self._pending: Pending | None = pending  # until it ends, since that leads back here
        self.requester: Requester | None = pending.requester  # None of a place that was given up
        self.error: ServingError | None = None
        self.over = False

    def encode(self, outputs: Tensors) -> None:
        self._asking.encode(outputs)

    def finish(self, error: ServingError) -> None:
        if isinstance(error, AT_ONCE):
            self.given_up().finish(error)
        else:
            self._pending = None
            self._outbox.over([self], error)

    @staticmethod
    def finish_all(requesters: Sequence[_Place]) -> None:
        for place in requesters:
            place._pending = None
        requesters[0]._outbox.over(requesters)

    def move(self, lease: Any) -> None:
        pending = self._pending
        assert pending
        pending.requester = requester = self.given_up()
        requester.move(lease)

    @property
    def _asking(self) -> Requester:
        assert self.requester, "it has given its place up"
        return self.requester

    def given_up(self) -> Requester:
        """Who has asked, without the place."""
        requester, self.requester, self._pending = self._asking, None, None
        self._outbox.over([self])
        return requester


def _send(places: Sequence[_Place]) -> None:
    answered: list[Requester] = []
    for place in places:
        if place.requester is None:
            continue
        if place.error is None:
            answered.append(place.requester)
            continue
        finish_all(answered)
        answered = []
        place.requester.finish(place.error)
    finish_all(answered)
