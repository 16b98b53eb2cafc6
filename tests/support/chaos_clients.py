"""Clients that number their steps and send again what was not answered, and that know every answer to the bit.

What they know is what an uninterrupted run of the same models in the same backend has answered. So an answer tells by itself
whether a step was lost, or counted twice.
"""

from __future__ import annotations

import dataclasses
import random
import threading
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

import grpc
import numpy as np

from models.config import LSTMConfig
from protos import grpc_service_pb2 as pb
from serving.launch import LaunchedServer
from tests.support import artefacts, real_model
from tests.support.running import until
from tests.support.stepping import Array, Said, epoch, step
from tests.support.wire import RawClient

STATEFUL, STATELESS = "m", "plain"
FEATURES = 3
NETWORK = LSTMConfig(
    input="features", features=FEATURES, layers=2, hidden=artefacts.HIDDEN, outputs=4, head="values_per_step"
)
CONFIG_TEXT = (
    "max_batch_size: 16 sequence_batching { max_sequence_idle_microseconds: 864000000000 "
    "oldest { max_queue_delay_microseconds: 200 } }"
)
RECORDINGS = 8  # of each model
MESSAGES = 80  # of each recording, of one to three steps
HELD = 6  # sequences of a client that are not at their end
AHEAD = 3  # messages of a sequence that a client has sent and not heard of, at most; the window is five
CALL_SECONDS = 2.0
MOST_LATE = 5  # times in a row; a server that stands still does for a little longer than a call waits
PROGRESS = 3  # answers of each client, after which a server counts as back
CODE = grpc.StatusCode
AGAIN = (CODE.UNAVAILABLE, CODE.ABORTED, CODE.DEADLINE_EXCEEDED)
ACKNOWLEDGED, WENT_ON, NOT_WRITTEN, BY_NAME = "acknowledged", "went on", "not written", "refused by name"
OF_THE_STORE = "the store of sequences"


@dataclasses.dataclass(frozen=True)
class Recording:
    """The messages of a sequence, and what was answered to each where nothing was done to the server."""

    model: str
    messages: Sequence[Array]
    answers: Sequence[bytes]


@dataclasses.dataclass(eq=False)
class Held:
    """A sequence of a client. `life` is that of the server that has answered last, `damage` as it was when it began."""

    recording: Recording
    id: int | str
    nonce: int
    damage: int
    life: int
    epoch: int = 0
    taken: int = 0
    late: int = 0  # how often in a row its next message had no answer in time
    alone: bool = False  # its next message is sent by itself, so that one that is missing is known as that

    def message(self, number: int) -> pb.ModelInferRequest:
        """That message as it is sent, each time the same but for what the START has told."""
        said: dict[str, Said] = {"sequence_id": self.id, "sequence_step": number}
        if number == 0:
            said |= {"sequence_start": True, "sequence_nonce": self.nonce}
        elif self.epoch:
            said["sequence_epoch"] = self.epoch
        if number == len(self.recording.messages) - 1:
            said["sequence_end"] = True
        return step(self.recording.model, self.recording.messages[number], ["y"], **said)


def write(folder: Path, formats: Sequence[str] = ("onnx_runtime",)) -> None:
    """A model that is stateful, and one that keeps nothing."""
    for name, network, text in ((STATEFUL, NETWORK, CONFIG_TEXT), (STATELESS, artefacts.FEATURES, "")):
        version, *_ = real_model.write(folder, formats, name=name, config=network)
        if text:
            (version.parent / "config.pbtxt").write_text(text)


def record(server: LaunchedServer, models: Mapping[str, int], seed: int, messages: int = MESSAGES) -> list[Recording]:
    """What a server to which nothing is done answers; `models` with the number of features of each."""
    numbers = np.random.default_rng(seed)
    recordings = []
    with RawClient(server.address) as client:
        ask = client.method("ModelInfer")
        for model, features in models.items():
            for number in range(RECORDINGS):
                sizes = numbers.integers(1, 4, messages)
                sent = [numbers.normal(0, 2, (1, size, features)).astype(np.float32) for size in sizes]
                held = Held(Recording(model, sent, []), f"recorded {number}", number + 1, 0, 0)
                answers = []
                for place in range(messages):
                    answer = ask(held.message(place), timeout=60)
                    held.epoch = epoch(answer)
                    answers.append(answer.raw_output_contents[0])
                recordings.append(Recording(model, sent, answers))
    return recordings


class Crowd:
    """Clients that ask as fast as they can, from the moment when there is a server until `finish`.

    `wrong` is whatever may not be. `counts` is what has happened since it was last cleared.
    """

    def __init__(self, recordings: Sequence[Recording], clients: int, seed: int) -> None:
        self.recordings = recordings
        self.wrong: list[str] = []
        self.counts: Counter[str] = Counter()
        self.refusals: Counter[str] = Counter()
        self.damage = 0  # how often the store was damaged or taken away
        self.life = 0
        self.over = False
        self._address: str | None = None
        self._changed = threading.Condition()
        self._clients = [_Client(self, number, seed) for number in range(clients)]
        for client in self._clients:
            client.start()

    def serve(self, address: str | None) -> None:
        """From now on a server answers there, or none does."""
        with self._changed:
            self.life += address is not None
            self._address = address
            self._changed.notify_all()

    def address(self) -> tuple[str, int] | None:
        """Where to ask, and the life of that server; waits for it. None when it is over."""
        with self._changed:
            self._changed.wait_for(lambda: self._address or self.over)
            return (self._address, self.life) if self._address and not self.over else None

    def damaged(self) -> None:
        """Sequences that have begun so far may be gone from now on, and their clients must hear it."""
        with self._changed:
            self.damage += 1

    def count(self, what: str, refused: str = "") -> None:
        """Something has happened."""
        with self._changed:
            self.counts[what] += 1
            if refused:
                self.refusals[refused] += 1

    def fail(self, why: str) -> None:
        """A promise was broken."""
        with self._changed:
            self.wrong.append(why)

    def clear(self) -> Counter[str]:
        """What has happened since the last time."""
        with self._changed:
            counted, self.counts = self.counts, Counter()
        return counted

    def goes_on(self) -> None:
        """Waits until each client has had a few answers more. Raises `AssertionError` if that takes too long."""
        before = [client.answered for client in self._clients]

        def all_have() -> bool:
            each = zip(self._clients, before, strict=True)
            return bool(self.wrong) or all(client.answered >= had + PROGRESS for client, had in each)

        until(all_have, lambda: f"clients do not go on; they heard {self.refusals.most_common(5)}")
        assert not self.wrong, "; ".join(self.wrong[:5])

    def forgets(self) -> None:
        """Waits until no client has a sequence any more that may be gone."""
        until(lambda: bool(self.wrong) or not any(client.has_older(self.damage) for client in self._clients))

    def finish(self) -> None:
        """Each sequence takes another step, and all clients end. Raises `AssertionError` where anything was wrong."""
        with self._changed:
            self.over = True
            self._changed.notify_all()
        for client in self._clients:
            client.join()
        if not self.wrong and self._address:
            for client in self._clients:
                client.last_steps(self._address, self.life)
        assert not self.wrong, "; ".join(self.wrong[:5])


class _Client(threading.Thread):
    def __init__(self, crowd: Crowd, number: int, seed: int) -> None:
        super().__init__(name=f"client {number}", daemon=True)
        self.answered = 0
        self._crowd = crowd
        self._draw = random.Random(f"{seed} {number}")
        self._held: list[Held] = []
        self._ahead = AHEAD if number % 3 == 0 else 1

    def run(self) -> None:
        try:
            while found := self._crowd.address():
                self._ask_at(*found)
        except Exception as error:  # noqa: BLE001 - whatever it is, the round has failed
            self._crowd.fail(f"a client has ended: {error!r}")

    def _ask_at(self, address: str, life: int) -> None:
        """Asks this server until there is another one."""
        with RawClient(address) as client:
            ask = client.method("ModelInfer")
            while self._crowd.address() == (address, life):
                while len(self._held) < HELD:
                    self._held.append(self._begin(life))
                held = self._draw.choice(self._held)
                taken = held.taken
                if not self._take(ask, held, life, self._ahead):
                    self._held.remove(held)
                elif held.taken == taken:
                    time.sleep(0.01)  # it was refused, and is sent again

    def has_older(self, damage: int) -> bool:
        """Whether a sequence has begun before that."""
        return any(held.damage < damage and held.taken for held in list(self._held))

    def last_steps(self, address: str, life: int) -> None:
        """One more of each sequence; these have no excuse."""
        with RawClient(address) as client:
            for held in self._held:
                taken = held.taken
                lives = self._take(client.method("ModelInfer"), held, life, 1)
                if lives and held.taken == taken:
                    self._crowd.fail(f"sequence {held.id} of {held.recording.model} did not go on in the end")

    def _begin(self, life: int) -> Held:
        number = self._draw.getrandbits(60) + 1
        id = number if self._draw.random() < 0.5 else f"of {self.name}: {number}"
        return Held(self._draw.choice(self._crowd.recordings), id, self._draw.getrandbits(60), self._crowd.damage, life)

    def _take(self, ask: grpc.UnaryUnaryMultiCallable, held: Held, life: int, ahead: int) -> bool:
        """Sends some messages and takes their answers, as far as they go; False when that sequence is no more."""
        crowd = self._crowd
        damage = crowd.damage
        first, left = held.taken, len(held.recording.messages) - held.taken
        count = (
            1 if first == 0 or held.alone else min(ahead, left)
        )  # what follows tells the epoch that the START has told
        calls = [ask.future(held.message(first + place), timeout=CALL_SECONDS) for place in range(count)]
        for place, call in enumerate(calls):
            try:
                answer = call.result()
            except grpc.RpcError as error:
                for other in calls[place:]:
                    other.cancel()
                return self._refused(held, error.code(), error.details(), may_be_early=count > 1)
            said = f"message {held.taken} of {held.id}, {held.recording.model}"
            if answer.raw_output_contents[0] != held.recording.answers[held.taken]:
                crowd.fail(f"{said}: another answer than without interruption")
                return False
            if held.epoch not in (0, epoch(answer)):
                crowd.fail(f"{said}: epoch {epoch(answer)}, and it began in {held.epoch}")
                return False
            if held.life != life and held.taken:
                crowd.count(WENT_ON)
            held.epoch, held.life = epoch(answer), life
            held.damage = damage if held.taken == 0 else held.damage  # nothing has harmed what begins
            held.taken += 1
            held.alone, held.late = False, 0
            self.answered += 1
            crowd.count(ACKNOWLEDGED)
        return held.taken < len(held.recording.messages)

    def _refused(self, held: Held, code: grpc.StatusCode, why: str, *, may_be_early: bool) -> bool:
        held.late = held.late + 1 if code is CODE.DEADLINE_EXCEEDED else 0
        if held.late == MOST_LATE:
            self._crowd.fail(f"message {held.taken} of {held.id}, {held.recording.model}: no answer, {MOST_LATE} times")
            return False
        if code in AGAIN:
            self._crowd.count(NOT_WRITTEN if OF_THE_STORE in why else code.name, f"{code.name}: {why[:200]}")
            return True
        if code is CODE.FAILED_PRECONDITION and may_be_early:
            self._crowd.count("too early", f"{code.name}: {why[:200]}")  # the one before it was not taken
            held.alone = True
            return True
        if held.damage < self._crowd.damage:
            self._crowd.count(BY_NAME, f"{code.name}: {why[:200]}")
            return False
        self._crowd.fail(f"message {held.taken} of {held.id}, {held.recording.model}: {code.name}: {why}")
        return False
