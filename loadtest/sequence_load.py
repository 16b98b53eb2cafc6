"""The loop that drives sequences: so many at once, each a message after the other, then a new one in its place.

The next message of a sequence leaves when the last is answered, or, with a pace, when it is due and the last is answered;
latency counts from when it was due. Each message has its number, so one that was perhaps lost is sent again as it was, and the
server computes it once. Whoever is given up, and a sequence that is cut short by the end of the run, is counted apart.
"""

from __future__ import annotations

import collections
import dataclasses
import heapq
import itertools
import secrets
import threading
from collections.abc import Iterator, Sequence

import grpc

from loadtest.calls import DEADLINE_EXCEEDED, OK, Answer, Calls
from loadtest.continuation import TOLERANCE, distance, state_in
from loadtest.errors import LoadTestError
from loadtest.load import Load, now_ns, sleep_precisely
from loadtest.recorder import Recorder
from loadtest.sequence_plan import Plan
from loadtest.step_messages import END, EPOCH, ID, NONCE, START, STEP, parameter
from loadtest.streams import STREAM_ERROR
from protos import grpc_service_pb2 as pb

# After these a message is sent again, so many times in all. An error message on a stream tells no code: what is not known to be
# refused for good may be refused again.
TRIES = {
    grpc.StatusCode.UNAVAILABLE.value[0]: 20,
    grpc.StatusCode.ABORTED.value[0]: 20,
    DEADLINE_EXCEEDED: 20,
    STREAM_ERROR: 8,
}
# What lstm-serve and Triton say, among else, of a step whose sequence cannot go on.
FOR_GOOD = (
    "must specify the START flag",
    "is not the one that lives",
    "(sequence_window): it expects",
    "is for the same message only",
)
FIRST_PAUSE_NS, LONGEST_PAUSE_NS = 10_000_000, 1_000_000_000  # before it is sent again; doubled each time
_LONGEST_SLEEP = 0.1  # seconds, until it looks whether to stop
_AT_ONCE = 8  # messages sent before the next answer is taken in


@dataclasses.dataclass
class Tally:
    """What became of the sequences of a run, its warm-up included.

    `given_up` and `resent` count messages by gRPC's code. `cut_short` are those that the end of the run has ended.
    """

    started: int = 0
    finished: int = 0
    cut_short: int = 0
    compared: int = 0
    wrong: int = 0
    worst: float = 0.0
    late_answers: int = 0
    given_up: dict[int, int] = dataclasses.field(default_factory=dict)
    resent: dict[int, int] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass
class _Slot:
    """One of the sequences at once, and the message that is its turn."""

    offset_ns: int
    open: bool = True
    series: int = 0
    named: bytes = b""  # the parameters of all its messages
    nonce: bytes = b""
    number: int = 0
    ends: bool = False
    due_ns: int = 0
    ready_ns: int = 0  # when it could leave: when it was due, or the answer before came
    ticks: int = 0  # messages of this slot that have been due
    tries: int = 0


class SequenceLoop(Load):
    """`sequences` at once; a message of each every `every_ns`, spread over that time, or as soon as it can be if that is 0.

    `lost_after_ns` is when a message counts as lost where calls have no deadlines of their own.
    """

    def __init__(
        self,
        calls: Calls,
        plan: Plan,
        recorder: Recorder,
        *,
        sequences: int,
        every_ns: int,
        start_ns: int,
        lost_after_ns: int | None = None,
    ) -> None:
        super().__init__(calls, (), recorder)
        self.tally = Tally()
        self._plan = plan
        self._every_ns = every_ns
        self._start_ns = start_ns
        self._lost_after_ns = lost_after_ns
        self._slots = [_Slot(every_ns * place // sequences) for place in range(sequences)]
        self._turn = itertools.count()
        self._ids: Iterator[int] = itertools.count((secrets.randbits(38) << 24) + 1)  # of no other run
        self._steps = [parameter(STEP, number) for number in range(max(len(each.sent) for each in plan.series))]
        self._keys = itertools.count(1)
        self._waiting: dict[int, _Slot] = {}  # by key, those whose answer is awaited
        self._sent_at: collections.deque[tuple[int, int]] = collections.deque()  # when, and which key
        self._due: list[tuple[int, int, _Slot]] = []  # a heap of those that wait for their time
        self._changed = threading.Condition()

    def run_sender(self) -> None:
        """Begins all sequences, and sends what waits for its time, until all have ended."""
        sleep_precisely()
        try:
            with self._changed:
                for slot in self._slots:
                    self._begin(slot, now_ns())
            while self._send_due():
                pass
        finally:
            self._calls.wake()

    def run_receiver(self) -> None:
        """Takes in answers until all sequences have ended."""
        sender_over = False
        while not sender_over or self._waiting:
            answers = self._calls.receive()
            if answers is None:
                sender_over = True
            else:
                self._received(answers)
        self._calls.finish()

    def _send_due(self) -> bool:
        """Sends what is due, or waits for it; False when there is nothing more to come."""
        with self._changed:
            if self._leaving() or not any(slot.open for slot in self._slots):
                return False
            now = now_ns()
            self._give_up_lost(now)
            for _ in range(_AT_ONCE):
                if not self._due or self._due[0][0] > now:
                    break
                self._send(heapq.heappop(self._due)[2])
            else:
                return True
            until = (self._due[0][0] - now_ns()) / 1e9 if self._due else _LONGEST_SLEEP
            if until > 0:
                self._changed.wait(min(until, _LONGEST_SLEEP))
        return True

    def _received(self, answers: Sequence[Answer]) -> None:
        received_ns = now_ns()
        if self._calls.fatal is not None:
            self.stopping.set()
        with self._changed:
            for answer in answers:
                slot = self._waiting.pop(answer.started_ns, None)
                if slot is None:
                    self.tally.late_answers += 1
                elif answer.code != OK:
                    self._failed(slot, answer, received_ns)
                else:
                    self._answered(slot, answer, received_ns)

    def _answered(self, slot: _Slot, answer: Answer, received_ns: int) -> None:
        self.recorder.add(answer._replace(started_ns=slot.due_ns), received_ns)
        if slot.number == 0:
            epoch = pb.ModelInferResponse.FromString(answer.payload or b"").parameters.get(EPOCH)
            slot.named += parameter(EPOCH, epoch.int64_param) if epoch else b""
        last = slot.number + 1 == len(self._plan.series[slot.series].sent)
        if last:
            self.tally.finished += 1
            self._compare(slot, answer.payload or b"")
        elif slot.ends:
            self.tally.cut_short += 1
        if last or slot.ends:
            self._begin(slot, received_ns)
            return
        slot.number += 1
        self._schedule(slot, received_ns)

    def _failed(self, slot: _Slot, answer: Answer, received_ns: int) -> None:
        answer = answer._replace(started_ns=slot.due_ns)
        if self.stopping.is_set():
            self.abandoned += 1
            slot.open = False
        elif self.overdue.is_set():
            self.recorder.add(answer._replace(code=DEADLINE_EXCEEDED, details="not answered in time"), received_ns)
            slot.open = False
        elif slot.tries < _tries(answer):
            self.tally.resent[answer.code] = self.tally.resent.get(answer.code, 0) + 1
            pause_ns = min(FIRST_PAUSE_NS << slot.tries - 1, LONGEST_PAUSE_NS)
            self._put_off(slot, received_ns + pause_ns)
        else:
            self.tally.given_up[answer.code] = self.tally.given_up.get(answer.code, 0) + 1
            self.recorder.add(answer, received_ns)
            self._begin(slot, received_ns)

    def _begin(self, slot: _Slot, now: int) -> None:
        """A new sequence in this place, unless the run is over."""
        slot.number, slot.ends = 0, False
        if self._schedule(slot, now):
            self.tally.started += 1

    def _named(self, slot: _Slot) -> None:
        name = next(self._ids)
        slot.series = next(self._turn) % len(self._plan.series)
        slot.named, slot.nonce = parameter(ID, name), parameter(START, True) + parameter(NONCE, name)

    def _schedule(self, slot: _Slot, now: int) -> bool:
        """Sends the next message, or puts it off until it is due; False where none is to come."""
        due_ns = now
        if self._every_ns:
            due_ns = self._start_ns + slot.offset_ns + slot.ticks * self._every_ns
            slot.ticks += 1
        end_ns = self.recorder.end_ns
        over = max(due_ns, now) >= end_ns
        if self._every_ns and now >= end_ns > due_ns:  # it and those behind it have no time left
            first_ns = max(due_ns, self.recorder.begin_ns)
            self.sends.not_sent += max(0, -((first_ns - end_ns) // self._every_ns))
            slot.ticks += (end_ns - due_ns) // self._every_ns  # counted once
        if self._leaving() or (over and slot.number == 0):
            slot.open = False
            self._changed.notify_all()
            return False
        if slot.number == 0:
            self._named(slot)
        slot.ends = over or slot.number + 1 == len(self._plan.series[slot.series].sent)
        slot.tries = 0
        slot.due_ns = max(due_ns, end_ns) if over else due_ns
        slot.ready_ns = due_ns if slot.ticks == 1 else max(due_ns, now)
        if slot.ticks > 1 and self.recorder.begin_ns <= due_ns < now and not over:
            self.sends.held_back += 1  # by the answer before
        begin_ns = end_ns if over else due_ns  # what ends a sequence early belongs to no measured time
        if begin_ns <= now:
            self._send(slot)
        else:
            self._put_off(slot, begin_ns)
        return True

    def _put_off(self, slot: _Slot, until_ns: int) -> None:
        heapq.heappush(self._due, (until_ns, next(self._keys), slot))
        if self._due[0][2] is slot:
            self._changed.notify_all()

    def _send(self, slot: _Slot) -> None:
        key, sent_ns = next(self._keys), now_ns()
        start = slot.nonce if slot.number == 0 else b""
        named = b"".join((slot.named, self._steps[slot.number], start, _ENDS if slot.ends else b""))
        self._waiting[key] = slot
        slot.tries += 1
        if self._lost_after_ns is not None:
            self._sent_at.append((sent_ns, key))
        try:
            self._calls.send(self._plan.head + named + self._plan.series[slot.series].sent[slot.number], key)
        except ValueError:
            del self._waiting[key]
            slot.open = False
            if not self._leaving():
                raise
            return
        if slot.tries == 1:
            self._count_send(slot.due_ns, max(0, sent_ns - slot.ready_ns))

    def _give_up_lost(self, now: int) -> None:
        """Those that were not answered in time, where nothing else says so."""
        while self._sent_at and self._lost_after_ns is not None and self._sent_at[0][0] + self._lost_after_ns <= now:
            _, key = self._sent_at.popleft()
            if slot := self._waiting.pop(key, None):
                self._failed(slot, Answer(key, DEADLINE_EXCEEDED, "not answered in time", None), now)

    def _compare(self, slot: _Slot, payload: bytes) -> None:
        """Looks whether the state after the last message is that of a run without a break."""
        if self._plan.expected is None:
            return
        self.tally.compared += 1
        try:
            state = state_in(pb.ModelInferResponse.FromString(payload), self._plan.state)
        except LoadTestError:
            self.tally.wrong += 1
            return
        away = distance(state, self._plan.expected[slot.series])
        self.tally.worst = max(self.tally.worst, away)
        self.tally.wrong += away > TOLERANCE

    def _leaving(self) -> bool:
        return self.stopping.is_set() or self.overdue.is_set()


def _tries(answer: Answer) -> int:
    """How many times a message is sent that was answered so."""
    if answer.code == STREAM_ERROR and any(said in answer.details for said in FOR_GOOD):
        return 1
    return TRIES.get(answer.code, 1)


_ENDS = parameter(END, True)
