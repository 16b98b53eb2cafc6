"""Clients that ask again as soon as they are answered: the load under which models are exchanged and backends break.

Every client sends values of its own, so that an answer that was meant for another is a wrong one.
"""

from __future__ import annotations

import itertools
import threading
from collections.abc import Callable

import grpc

from tests.support.fake_models import FEATURES
from tests.support.wire import RawClient

# Asks once, as the client of this number, for the n-th time. Raises `grpc.RpcError` or `AssertionError`.
Ask = Callable[[RawClient, int, int], None]


def fake(model: str = "fake") -> Ask:
    """Asks a fake model, whose answer is known."""

    def ask(client: RawClient, number: int, time: int) -> None:
        value, steps = number + 1, time % 3 + 1
        assert client.infer(model, value, steps, timeout=120).tolist() == [value * steps * FEATURES] * 2

    return ask


class ClosedLoop:
    """Asks from `clients` connections until the `with` block is left; then fails if any request has failed.

    A client rests for `rest_seconds` before each request. A server that imports a runtime stands aside for whoever it
    answers, so that the import takes half a minute where nobody rests.
    """

    def __init__(self, address: str, ask: Ask | None = None, *, clients: int = 4, rest_seconds: float = 0.0) -> None:
        self.rest_seconds = rest_seconds
        self.answered = 0
        self.failures: list[str] = []
        self._ask = ask or fake()
        self._changed = threading.Condition()
        self._over = threading.Event()
        self._threads = [threading.Thread(target=self._run, args=(address, number)) for number in range(clients)]

    def more(self, count: int = 20) -> None:
        """Returns when so many more requests have ended; what was going on at the call is over then."""
        with self._changed:
            until = self.answered + len(self.failures) + count
            assert self._changed.wait_for(lambda: self.answered + len(self.failures) >= until, 120), "no answers come"

    def _run(self, address: str, number: int) -> None:
        with RawClient(address) as client:
            for time in itertools.count():
                if self._over.wait(self.rest_seconds):
                    return
                failure = ""
                try:
                    self._ask(client, number, time)
                except grpc.RpcError as error:
                    failure = f"{error.code().name}: {error.details()}"
                except AssertionError as error:
                    failure = str(error)
                with self._changed:
                    self.answered += not failure
                    self.failures += [failure] if failure else []
                    self._changed.notify_all()

    def __enter__(self) -> ClosedLoop:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        self._over.set()
        for thread in self._threads:
            thread.join()
        if kind is None:
            assert self.failures == []
            assert self.answered
