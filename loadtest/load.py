"""The two loops that make load, and the clock that they obey.

A closed loop sends the next request when the last is answered, so a server that stalls is not asked anything during its
stall: the latencies that real users would have seen are omitted, not measured (Gil Tene, "How NOT to Measure Latency":
coordinated omission). An open loop sends by the clock whatever the server does, and counts from the moment that was
intended. The client can fall behind its own clock too; that is counted apart, never hidden.
"""

from __future__ import annotations

import dataclasses
import itertools
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from loadtest.calls import DEADLINE_EXCEEDED, Answer, Calls
from loadtest.recorder import Recorder

LATE_NS = 1_000_000  # a request that leaves later than this after its intended time has left late
_LONGEST_SLEEP, _SHORT_SLEEP = 0.2, 0.0002  # seconds: until it looks whether to stop; until it tries again
_AT_ONCE = 8  # requests sent before the next answer is received

now_ns = time.perf_counter_ns


@dataclasses.dataclass
class Sends:
    """How sending went, measured requests only. `not_sent` were due and never left; lags are nanoseconds.

    `held_back` counts the times that the bound on requests in flight made the sender wait.
    """

    sent: int = 0
    late: int = 0
    lag_total_ns: int = 0
    lag_max_ns: int = 0
    not_sent: int = 0
    held_back: int = 0


class Load:
    """What both loops share: the connection, where answers go, and how the run ends.

    `run_sender` and `run_receiver` are the threads' work; a closed loop has no sender. `stop` ends the run before its
    time: requests in flight are then broken off and counted nowhere but in `abandoned`.
    """

    def __init__(self, calls: Calls, requests: Sequence[bytes], recorder: Recorder) -> None:
        self.recorder = recorder
        self.sends = Sends()
        self.abandoned = 0
        self.stopping = threading.Event()
        self.overdue = threading.Event()
        self._calls = calls
        self._requests = itertools.cycle(requests)
        self._in_flight = 0

    def stop(self) -> None:
        """Sends no more and counts what is still in flight as abandoned."""
        self.stopping.set()

    def _hand_over(self, started_ns: int) -> bool:
        """Sends the next request; False if the connection was closed under it because the run is stopping."""
        try:
            self._calls.send(next(self._requests), started_ns)
        except ValueError:
            if not self.stopping.is_set():
                raise
            return False
        return True

    def _received(self, answers: Sequence[Answer]) -> None:
        received_ns = now_ns()
        if self._calls.fatal is not None:
            self.stopping.set()
        for answer in answers:
            if self.stopping.is_set() and answer.code:
                self.abandoned += 1
            elif self.overdue.is_set() and answer.code:
                self.recorder.add(answer._replace(code=DEADLINE_EXCEEDED, details="not answered in time"), received_ns)
            else:
                self.recorder.add(answer, received_ns)

    def _count_send(self, intended_ns: int, lag_ns: int) -> None:
        if not self.recorder.begin_ns <= intended_ns < self.recorder.end_ns:
            return
        sends = self.sends
        sends.sent += 1
        sends.lag_total_ns += lag_ns
        sends.lag_max_ns = max(sends.lag_max_ns, lag_ns)
        if lag_ns > LATE_NS:
            sends.late += 1


class ClosedLoop(Load):
    """`concurrency` requests in flight at any time, sent and received by one thread."""

    def __init__(self, calls: Calls, requests: Sequence[bytes], recorder: Recorder, concurrency: int) -> None:
        super().__init__(calls, requests, recorder)
        self._concurrency = concurrency

    def run_receiver(self) -> None:
        """Keeps the requests going until the end, then waits for the last answers."""
        for _ in range(self._concurrency):
            self._send()
        while self._in_flight:
            answers = self._calls.receive() or ()
            self._received(answers)
            self._in_flight -= len(answers)
            for _ in answers:
                self._send()
        self._calls.finish()

    def _send(self) -> None:
        started_ns = now_ns()
        if started_ns >= self.recorder.end_ns or self.stopping.is_set():
            return
        if not self._hand_over(started_ns):
            return
        self._in_flight += 1
        self._count_send(started_ns, 0)


class OpenLoop(Load):
    """Requests at the times of a schedule (nanoseconds after `start_ns`), at most `max_in_flight` at a time.

    A thread sleeps until each time comes and sends; while answers pour in, the thread that receives them sends what is
    due in passing, because two Python threads that take turns for every request get half as far as one. The lock says
    who is sending. The bound keeps a server that has died from eating the client's memory.
    """

    def __init__(
        self,
        calls: Calls,
        requests: Sequence[bytes],
        recorder: Recorder,
        times: Iterator[int],
        start_ns: int,
        max_in_flight: int,
    ) -> None:
        super().__init__(calls, requests, recorder)
        self._due = (start_ns + offset for offset in times)
        self._next_ns = next(self._due)
        self._max_in_flight = max_in_flight
        self._sent = self._done = 0
        self._held_back_ns = -1
        self._over = False
        self._sending = threading.Lock()

    def run_sender(self) -> None:
        """Sends each request at its time, or as soon after as it can, until the end of the run."""
        sleep_precisely()
        try:
            while not self._ended():
                wait_ns = self._next_ns - now_ns()
                if wait_ns > 0:
                    time.sleep(min(wait_ns / 1e9, _LONGEST_SLEEP))
                elif not self._send_due():
                    time.sleep(_SHORT_SLEEP)
            with self._sending:
                self._over = True
                self._count_not_sent()
        finally:
            self._calls.wake()

    def run_receiver(self) -> None:
        """Takes in answers until all is sent and answered."""
        all_sent = False
        while not all_sent or self._done < self._sent:
            answers = self._calls.receive()
            if answers is None:
                all_sent = True
                continue
            self._received(answers)
            self._done += len(answers)
            if self._next_ns <= now_ns():
                self._send_due()
        self._calls.finish()

    def _ended(self) -> bool:
        end_ns = self.recorder.end_ns
        return self.stopping.is_set() or self._next_ns >= end_ns or now_ns() >= end_ns + LATE_NS

    def _send_due(self) -> bool:
        """Sends some of what is due; False if the other thread is at it, or too much is in flight."""
        if not self._sending.acquire(blocking=False):
            return False
        try:
            for _ in range(_AT_ONCE):
                intended_ns = self._next_ns
                lag_ns = now_ns() - intended_ns
                if lag_ns < 0 or self._over or intended_ns >= self.recorder.end_ns or self.stopping.is_set():
                    return True
                if self._sent - self._done >= self._max_in_flight:
                    self.sends.held_back += intended_ns != self._held_back_ns
                    self._held_back_ns = intended_ns
                    return False
                self._hand_over(intended_ns)
                self._sent += 1
                self._count_send(intended_ns, lag_ns)
                self._next_ns = next(self._due)
            return True
        finally:
            self._sending.release()

    def _count_not_sent(self) -> None:
        """All that was still due within the run."""
        while self._next_ns < self.recorder.end_ns and not self.stopping.is_set():
            self.sends.not_sent += self._next_ns >= self.recorder.begin_ns
            self._next_ns = next(self._due)


def sleep_precisely() -> None:
    """Takes some 40 us off every sleep of this thread, where the kernel lets it (Linux; see prctl(2), timer slack)."""
    slack = Path(f"/proc/{threading.get_native_id()}/timerslack_ns")
    if slack.exists():
        slack.write_text("1000")
