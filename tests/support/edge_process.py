"""The edge on nghttp2 in a process of its own, with a stub behind it: for what measures memory, or might end the process.

    python -m tests.support.edge_process

says its port in a line, and for each line that it reads what it takes now, as JSON.
"""

from __future__ import annotations

import json
import queue
import random
import subprocess
import sys
import threading
from collections.abc import Sequence
from typing import Any

from serving.edge.traffic import Limits
from serving.protocol.call import Call, reply_all
from serving.protocol.codes import Code
from tests.support.edge_port import descriptors, edge, resident_bytes, taken

# Small enough that whatever waits for a time-out is seen to be over.
LIMITS = Limits(
    1_000_000,
    message_seconds=2,
    handshake_seconds=2,
    stalled_seconds=2,
    keepalive_seconds=30,
    keepalive_timeout_seconds=2,
)
LARGEST_ANSWER = 1_000_000  # bytes
FAILS = b"fails"  # what a message begins with whose call is to fail


class Answers:
    """An `infer` that answers from threads of its own, in bursts and in any order, each call once.

    The answer is what was asked, if that is not large.
    """

    def __init__(self, threads: int = 2) -> None:
        self.asked = self.answered = self.cancelled = 0
        self._lock = threading.Lock()
        self._waiting: queue.SimpleQueue[tuple[bytes, Call]] = queue.SimpleQueue()
        for number in range(threads):
            threading.Thread(target=self._answer, args=(random.Random(number),), daemon=True).start()

    def __call__(self, payload: bytes, call: Call) -> None:
        with self._lock:
            self.asked += 1
        call.on_cancel(self._cancelled)
        self._waiting.put((payload, call))

    def _cancelled(self) -> None:
        with self._lock:
            self.cancelled += 1

    def _answer(self, rng: random.Random) -> None:
        while True:
            burst = [self._waiting.get()]
            while not self._waiting.empty() and len(burst) < 64:
                burst.append(self._waiting.get())
            rng.shuffle(burst)
            for payload, call in burst:
                if payload.startswith(FAILS):
                    call.fail(Code.INVALID_ARGUMENT, "as it was asked")
            answers = [(call, payload[:LARGEST_ANSWER]) for payload, call in burst if not payload.startswith(FAILS)]
            if answers:
                reply_all(answers)
            with self._lock:
                self.answered += len(burst)


class EdgeProcess:
    """The process; a context manager that ends it. Raises `AssertionError` where it has ended, or has said something."""

    def __init__(self, limits: Limits = LIMITS) -> None:
        command = [sys.executable, "-m", "tests.support.edge_process", json.dumps(limits)]
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, bufsize=1
        )
        self._said: list[str] = []
        self._listening = threading.Thread(target=self._listen, daemon=True)
        self._listening.start()
        self.port = int(self._ask(""))

    def status(self) -> dict[str, Any]:
        """What it takes now."""
        status: dict[str, Any] = json.loads(self._ask("status\n"))
        assert not self._said, "".join(self._said)
        return status

    def _ask(self, line: str) -> str:
        assert self._process.stdin
        assert self._process.stdout
        try:
            self._process.stdin.write(line)
        except BrokenPipeError:
            answer = ""
        else:
            answer = self._process.stdout.readline()
        if not answer:
            code = self._process.wait()
            self._listening.join()
            raise AssertionError(f"the server has ended with {code}\n{''.join(self._said)}")
        return answer

    def _listen(self) -> None:
        assert self._process.stderr
        # Whom it throws out it tells; that is what is asked of it.
        self._said.extend(line for line in self._process.stderr if not line.startswith("a connection of "))

    def __enter__(self) -> EdgeProcess:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.wait()
        self._listening.join()
        for pipe in (self._process.stdin, self._process.stdout, self._process.stderr):
            assert pipe
            pipe.close()


def main(arguments: Sequence[str]) -> None:
    answers = Answers()
    with edge(answers, limits=Limits(*json.loads(arguments[0]))) as server:
        print(server.port, flush=True)
        for _ in sys.stdin:
            connections, calls, unfinished, unsent = taken(server)
            status = {
                "connections": connections,
                "calls": calls,
                "unfinished": unfinished,
                "unsent": unsent,
                "descriptors": descriptors(),
                "resident_bytes": resident_bytes(),
                "asked": answers.asked,
                "answered": answers.answered,
                "cancelled": answers.cancelled,
                "accepted": server.counts.accepted,
                "closed": server.counts.closed,
            }
            print(json.dumps(status), flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
