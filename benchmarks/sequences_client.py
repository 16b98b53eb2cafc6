"""Steps of many sequences on a few bidirectional streams, from a process of its own: in a closed loop, or each by the clock.

    python benchmarks/sequences_client.py HOST:PORT FILE --sequences 64 --streams 8 --seconds 3
    python benchmarks/sequences_client.py HOST:PORT FILE --sequences 200 --streams 8 --seconds 10 --every 0.032

FILE is a serialised ModelInferRequest with the inputs of a step. Every sequence has at most one step in flight where it loops;
by the clock its steps leave when they are due, whatever has been answered, and are timed from then. What was counted is printed
as JSON.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from loadtest.calls import OK
from loadtest.endpoint import Endpoint
from loadtest.streams import StreamCalls
from protos import grpc_service_pb2 as pb

ROOT = Path(__file__).parents[1]
LENGTH = 1000  # steps of a sequence in a closed loop


@contextlib.contextmanager
def ran(address: str, request: bytes, folder: Path, *, seconds: float, **flags: float) -> Iterator[dict[str, Any]]:
    """The figures of one run, its sequences being live until the block is left.

    Raises `RuntimeError` with the client's last words if there are none.
    """
    file = folder / "step"
    file.write_bytes(request)
    command = [sys.executable, __file__, address, str(file), "--seconds", str(seconds)]
    command += [part for name, value in flags.items() for part in (f"--{name}", str(value))]
    with (folder / "said").open("w+") as said:
        process = subprocess.Popen(
            command,
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=said,
            text=True,
            env={"PYTHONPATH": str(ROOT)},
        )
        with process:
            try:
                assert process.stdout
                if not (line := process.stdout.readline()):
                    said.seek(0)
                    raise RuntimeError(f"{' '.join(command)} has failed: {said.read()[-1000:]}")
                yield dict(json.loads(line))
                process.communicate(timeout=60)
            finally:
                process.kill()


class Sequences:
    """What each sequence sends next: ready-made bytes, the id and the flags of a step behind the inputs of all."""

    def __init__(self, request: bytes, count: int, length: int, *, numbered: bool = False) -> None:
        self._numbers = [_number(place) for place in range(length)] if numbered else None
        self._request = request
        self._length = length
        self._taken = [0] * count
        self._round = [0] * count
        self._plain = [b""] * count

    def next(self, number: int, *, last: bool = False) -> bytes:
        """The next step of a sequence; the first one of a new sequence once it has ended."""
        count = len(self._taken)
        place = self._taken[number]
        start, end = place == 0, last or place == self._length - 1
        if start:
            self._plain[number] = self._request + _said(number + 1 + self._round[number] * count)
        self._taken[number] = 0 if end else place + 1
        self._round[number] += end
        said = self._numbers[place] if self._numbers else b""
        return self._plain[number] + said + (_flags(start, end) if start or end else b"")

    def begun(self, number: int) -> bool:
        """Whether it has to be ended."""
        return self._taken[number] > 0


def _said(id: int) -> bytes:
    made = pb.ModelInferRequest()
    made.parameters["sequence_id"].int64_param = id
    return made.SerializeToString()


def _number(step: int) -> bytes:
    made = pb.ModelInferRequest()
    made.parameters["sequence_step"].int64_param = step
    return made.SerializeToString()


def _flags(start: bool, end: bool) -> bytes:
    made = pb.ModelInferRequest()
    for name, so in (("sequence_start", start), ("sequence_end", end)):
        if so:
            made.parameters[name].bool_param = True
    return made.SerializeToString()


class Run:
    """One run; `tag` of an answer is the number of its step, of which `_when` has the due time and `_whose` the sequence."""

    def __init__(
        self, address: str, request: bytes, sequences: int, streams: int, length: int, *, numbered: bool = False
    ) -> None:
        self._calls = StreamCalls(Endpoint(address), 60.0, streams)
        self._sequences = Sequences(request, sequences, length, numbered=numbered)
        self._count = sequences
        self._whose: dict[int, int] = {}
        self._when: dict[int, int] = {}
        self._number = 0
        self.taken_ns: list[int] = []
        self.refused: list[str] = []

    def _send(self, sequence: int, due_ns: int, *, last: bool = False) -> None:
        self._number += 1
        self._whose[self._number], self._when[self._number] = sequence, due_ns
        self._calls.send(self._sequences.next(sequence, last=last), self._number)

    def _receive(self, into: list[int] | None) -> list[int]:
        """The sequences whose steps have been answered; their times are kept in `into`."""
        ended = []
        for answer in self._calls.receive() or ():
            now, tag = time.perf_counter_ns(), answer.started_ns
            ended.append(self._whose.pop(tag))
            due_ns = self._when.pop(tag)
            if answer.code != OK:
                self.refused.append(answer.details)
            elif into is not None:
                into.append(now - due_ns)
        return ended

    def loop(self, seconds: float) -> float:
        """A closed loop; returns the seconds that it took."""
        begun = time.perf_counter_ns()
        until = begun + int(seconds * 1e9)
        for sequence in range(self._count):
            self._send(sequence, time.perf_counter_ns())
        waiting = self._count
        while waiting:
            for sequence in self._receive(self.taken_ns):
                waiting -= 1
                if time.perf_counter_ns() < until and not self.refused:
                    self._send(sequence, time.perf_counter_ns())
                    waiting += 1
        return (time.perf_counter_ns() - begun) / 1e9

    def by_the_clock(self, seconds: float, every: float) -> float:
        """Every sequence sends each `every` seconds, all of them evenly spread; returns the seconds that it took."""
        total = int(seconds / every) * self._count
        gap_ns = every * 1e9 / self._count
        begun = time.perf_counter_ns() + 50_000_000
        over = threading.Event()

        def receive() -> None:
            got = 0
            while got < total:
                got += len(self._receive(self.taken_ns))
            over.set()

        receiving = threading.Thread(target=receive, daemon=True)
        receiving.start()
        for number in range(total):
            due_ns = begun + int(number * gap_ns)
            while (left := due_ns - time.perf_counter_ns()) > 0:
                time.sleep(left / 1e9)
            self._send(number % self._count, due_ns)
        if not over.wait(30):
            self.refused.append(f"{len(self._whose)} steps have no answer after 30 s")
        return (time.perf_counter_ns() - begun) / 1e9

    def end(self) -> None:
        """Ends every sequence that is live."""
        waiting = 0
        for sequence in range(self._count):
            if self._sequences.begun(sequence):
                self._send(sequence, time.perf_counter_ns(), last=True)
                waiting += 1
        while waiting:
            waiting -= len(self._receive(None))


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("address")
    parser.add_argument("file", type=Path)
    parser.add_argument("--sequences", type=int, default=64)
    parser.add_argument("--streams", type=int, default=8)
    parser.add_argument("--seconds", type=float, default=3.0)
    parser.add_argument("--every", type=float, default=0.0)
    parser.add_argument("--numbered", type=int, default=0, help="1: each step says its number, so answers are kept")
    asked = parser.parse_args()
    length = LENGTH if not asked.every else sys.maxsize
    run = Run(
        asked.address, asked.file.read_bytes(), asked.sequences, asked.streams, length, numbered=bool(asked.numbered)
    )
    before = time.process_time()
    took = run.by_the_clock(asked.seconds, asked.every) if asked.every else run.loop(asked.seconds)
    used = time.process_time() - before
    milliseconds = np.array(run.taken_ns or [0]) / 1e6
    print(
        json.dumps(
            {
                "answered": len(run.taken_ns),
                "refused": len(run.refused),
                "refusals": run.refused[:3],
                "per_second": len(run.taken_ns) / took,
                "client_cpu_us": used / max(len(run.taken_ns), 1) * 1e6,
                "p50_ms": float(np.percentile(milliseconds, 50)),
                "p99_ms": float(np.percentile(milliseconds, 99)),
                "most_ms": float(milliseconds.max()),
            }
        ),
        flush=True,
    )
    sys.stdin.read()  # until whoever has asked has seen what the server says of it
    if not run.refused:
        run.end()


if __name__ == "__main__":
    main()
