"""A great many requests through all that stands between edge and backend: unequal lengths, levels, deadlines, clients that go.

    python -m tests.support.queue_soak --requests 3000000

The backend is the fake one, whose answers are known. At the end each request has been answered exactly once and rightly, and the
process has as much memory, as many files and as many threads as when every kind of request had been seen.
"""

from __future__ import annotations

import argparse
import collections
import gc
import logging
import os
import queue
import random
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from protos import grpc_service_pb2 as pb
from serving.protocol.codes import REFUSALS, Code
from serving.protocol.inference import Inference
from serving.telemetry.ended import Recorder
from serving.telemetry.timeline import now_ns
from tests.support import fake_models
from tests.support.managed import managing

GROWTH_BYTES = 16 * 2**20
WAYS, IN_FLIGHT = 600, 96
SEEN = 0.2  # of the requests, after which nothing new comes
POISON = 13.0
CONFIG = """
    max_batch_size: 16
    dynamic_batching {
        priority_levels: 3
        default_priority_level: 2
        default_queue_policy { max_queue_size: 40 allow_timeout_override: true }
        priority_queue_policy { key: 3 value { timeout_action: DELAY default_timeout_microseconds: 300 max_queue_size: 40 } }
    }
"""
ALLOWED = {
    "patient": {Code.UNAVAILABLE},  # the queue was full
    "hasty": {Code.UNAVAILABLE, Code.DEADLINE_EXCEEDED},
    "fickle": {Code.UNAVAILABLE, Code.CANCELLED},
    "poison": {Code.UNAVAILABLE, Code.INTERNAL},
}


class Asked(NamedTuple):
    """The bytes of a request, and the end of those of its answer; empty where it fails."""

    payload: bytes
    answer: bytes


class Call:
    """One request; see `serving.protocol.call.Call`."""

    def __init__(self, soak: Soak, asked: Asked, mood: str) -> None:
        self.received_ns = now_ns()
        self.deadline_ns = self.received_ns + soak.random.randrange(2_000_000) if mood == "hasty" else None
        self.caller, self.on_stream, self.gone = "", 0, False
        self._soak = soak
        self._asked = asked
        self._mood = mood
        self._ended = 0
        self.cancel: Callable[[], None] = lambda: None

    def reply(self, payload: bytes) -> None:
        self._ended += 1
        if self._ended > 1 or self._mood == "poison" or not payload.endswith(self._asked.answer):
            self._soak.wrong.append(f"a {self._mood} request was answered {self._ended} times, now by {payload.hex()}")
        self._soak.ended(Code.OK.name)

    @staticmethod
    def reply_all(answers: Sequence[tuple[Call, bytes]]) -> None:
        for call, payload in answers:
            call.reply(payload)

    def fail(self, code: Code, message: str, retry_ms: int = 0) -> None:
        self._ended += 1
        if self._ended > 1 or code not in ALLOWED[self._mood]:
            self._soak.wrong.append(
                f"a {self._mood} request has ended {self._ended} times, now by {code.name}: {message}"
            )
        self._soak.ended(code.name)

    def on_cancel(self, action: Callable[[], None]) -> None:
        self.cancel = action


class Soak:
    """Keeps so many requests in flight until all have ended."""

    def __init__(self, inference: Inference, seed: int = 0) -> None:
        self.random = random.Random(seed)
        self.wrong: list[str] = []
        self.codes: collections.Counter[str] = collections.Counter()
        self._inference = inference
        self._ways = [self._way(number) for number in range(WAYS)]
        self._poison = self._made(POISON, 3, 2, fails=True)
        self._ended: queue.SimpleQueue[str] = queue.SimpleQueue()

    def ended(self, code: str) -> None:
        """One has ended so."""
        self._ended.put(code)

    def run(self, requests: int) -> None:
        """So many more. Raises `AssertionError` at the first that has ended as it may not."""
        sent, left, room = 0, requests, IN_FLIGHT
        while left:
            burst = min(room, requests - sent)
            calls = [self._call() for _ in range(burst)]
            self._inference.infer_all([(asked.payload, call) for asked, call in calls])
            for _, call in calls:
                if call._mood == "fickle":
                    call.cancel()
            sent += burst
            room = 0
            while left and (not room or not self._ended.empty()):
                self.codes[self._ended.get(timeout=60)] += 1
                room += 1
                left -= 1
            assert not self.wrong, self.wrong[0]

    def _call(self) -> tuple[Asked, Call]:
        drawn = self.random.random()
        if drawn < 0.002:
            return self._poison, Call(self, self._poison, "poison")
        asked = self._ways[int(self.random.random() * WAYS)]
        return asked, Call(self, asked, "hasty" if drawn < 0.1 else "fickle" if drawn < 0.2 else "patient")

    def _way(self, number: int) -> Asked:
        steps = 900 if number % 50 == 0 else self.random.randint(1, 60)
        return self._made(float(number % 97 + 20), steps, self.random.choice((0, 1, 2, 3)))

    def _made(self, value: float, steps: int, priority: int, *, fails: bool = False) -> Asked:
        x = np.full((1, steps, fake_models.FEATURES), value, np.float32)
        request = pb.ModelInferRequest(model_name="fake", raw_input_contents=[x.tobytes()])
        request.inputs.add(name="x", datatype="FP32", shape=x.shape)
        if priority:
            request.parameters["priority"].int64_param = priority
        if self.random.random() < 0.2:
            request.parameters["timeout"].int64_param = 10**7
        answer = np.full(2, value * steps * fake_models.FEATURES, np.float32).tobytes()
        return Asked(request.SerializeToString(), b"" if fails else answer)


class Held(NamedTuple):
    """What the process has: bytes of memory, files and threads."""

    memory: int
    files: int
    threads: int


def held() -> Held:
    """Now, without garbage (Linux)."""
    gc.collect()
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return Held(
        pages * os.sysconf("SC_PAGE_SIZE"), sum(1 for _ in Path("/proc/self/fd").iterdir()), threading.active_count()
    )


def soak(requests: int) -> tuple[collections.Counter[str], Held, Held]:
    """How they have ended; what was held once all kinds were seen, and at the end. Raises `AssertionError` where it has grown."""
    logging.getLogger("serving").setLevel(logging.CRITICAL)  # each poisoned batch has its trace
    with tempfile.TemporaryDirectory() as folder:
        fake_models.write(Path(folder), fail_on=POISON)
        manager = managing(Path(folder), CONFIG)
        soaking = Soak(Inference(manager, Recorder(0.0, REFUSALS), max_steps=8192))
        soaking.run(int(SEEN * requests))
        before = held()
        soaking.run(requests - int(SEEN * requests))
        after = held()
        with manager.acquire("fake") as model:
            counted = model.metrics
            assert counted.requests["success"] == soaking.codes["OK"], "counted otherwise than it was answered"
        assert counted.in_flight == 0
        assert manager.close(60)
    assert after.memory - before.memory < GROWTH_BYTES, f"the memory has grown from {before} to {after}"
    assert (after.files, after.threads) <= (before.files, before.threads), f"from {before} to {after}"
    return soaking.codes, before, after


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--requests", type=int, default=3_000_000)
    asked = parser.parse_args()
    began = time.monotonic()
    codes, before, after = soak(asked.requests)
    print(f"{asked.requests:,} requests in {time.monotonic() - began:.0f} s:", dict(codes.most_common()))
    print(
        f"held {before.memory / 2**20:.0f} MB, then {after.memory / 2**20:.0f} MB; {after.files} files, {after.threads} threads"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
