"""A great many calls against the edge on nghttp2: cancelled, late, in streams, on connections that are lost.

    python -m tests.support.edge_soak --calls 1000000

Clients of grpcio and clients that write frames themselves know what each call must be answered, if it is. At the end each
call has ended once, and the server, which is a process of its own, has as much memory and as many files as at the beginning.
"""

from __future__ import annotations

import argparse
import collections
import random
import sys
import threading
import time
from collections.abc import Callable
from typing import Any

import grpc

from serving.edge.stream_messages import answered
from serving.protocol.methods import INFER, SERVICE, STREAM_INFER
from tests.support.edge_fuzz import GROWTH_BYTES, settled
from tests.support.edge_process import FAILS, EdgeProcess
from tests.support.frames import STREAM_PATH, Raw, fields, message, reset
from tests.support.grpc_port import WAIT_SECONDS

GRPC_CLIENTS, RAW_CLIENTS = 2, 2
AT_ONCE = 100  # calls of a client, and then it takes another connection
STREAM_MESSAGES = 20
CODE = grpc.StatusCode


class Tally:
    """How calls have ended, over all clients. `begin` says whether there are to be more."""

    def __init__(self, calls: int) -> None:
        self.ended: collections.Counter[str] = collections.Counter()
        self.failures: list[str] = []
        self._left = calls
        self._lock = threading.Lock()

    def begin(self, calls: int) -> bool:
        """So many calls are about to be made."""
        with self._lock:
            self._left -= calls
            return self._left + calls > 0 and not self.failures

    def count(self, ended: collections.Counter[str]) -> None:
        """Calls have ended so."""
        with self._lock:
            self.ended.update(ended)

    def fail(self, why: str) -> None:
        """Something was wrong."""
        with self._lock:
            self.failures.append(why)

    @property
    def part_done(self) -> int:
        """Calls that have ended."""
        with self._lock:
            return self.ended.total()


def payload_of(rng: random.Random) -> bytes:
    """What no other call says; large now and then."""
    return rng.randbytes(12) + bytes(rng.choice((0, 0, 0, 0, 100, 3000, 100_000 if rng.random() < 0.02 else 0)))


def with_grpcio(port: int, rng: random.Random, ended: collections.Counter[str]) -> None:
    """One connection of a real client: calls in every mood at once, and goodbye before or after all have ended."""
    client = grpc.insecure_channel(f"127.0.0.1:{port}", [("grpc.use_local_subchannel_pool", 1)])
    with client:
        ask = client.unary_unary(f"/{SERVICE}/{INFER}")
        asked = []
        for _ in range(AT_ONCE - STREAM_MESSAGES):
            payload = rng.choice((b"", FAILS if rng.random() < 0.1 else b"")) + payload_of(rng)
            mood = rng.choice(("patient", "patient", "hasty", "fickle"))
            timeout = rng.uniform(0.0005, 0.02) if mood == "hasty" else WAIT_SECONDS
            # Only where nothing ends the call early: grpcio 1.85 then now and then hands out an answer that it has not unpacked.
            packed = grpc.Compression.Gzip if mood == "patient" and rng.random() < 0.1 else None
            asked.append((mood, payload, ask.future(payload, timeout=timeout, compression=packed)))
            if mood == "fickle" and rng.random() < 0.5:
                asked[-1][2].cancel()
        sent = [payload_of(rng) for _ in range(STREAM_MESSAGES)]
        opened = client.stream_stream(f"/{SERVICE}/{STREAM_INFER}")(iter(sent), timeout=WAIT_SECONDS)
        stop_at = rng.choice((STREAM_MESSAGES, STREAM_MESSAGES, rng.randrange(1, STREAM_MESSAGES)))
        for count, answer in enumerate(opened, 1):
            assert answer == answered(sent[count - 1]), "another answer in a stream"
            if count == stop_at < STREAM_MESSAGES:
                opened.cancel()
                break
        ended["answered"] += stop_at
        ended["cancelled"] += STREAM_MESSAGES - stop_at
        for _, _, future in asked:
            if rng.random() < 0.05:
                future.cancel()
        if rng.random() < 0.9:
            for each in asked:
                outcome(*each)
    ended.update(outcome(*each) for each in asked)


def shown(payload: bytes) -> str:
    """Enough of it to know it again."""
    return f"{len(payload)} bytes, {payload[:40].hex()}"


def outcome(mood: str, payload: bytes, future: Any) -> str:
    """How a call has ended. Raises `AssertionError` where that may not be."""
    code = future.code()
    if code is CODE.OK:
        answer = future.result()
        assert answer == payload, f"a call that was {mood} had another answer: {shown(payload)} {shown(answer)}"
        return "answered"
    if code is CODE.INVALID_ARGUMENT and payload.startswith(FAILS):
        return "failed"
    if code is CODE.CANCELLED:
        return "cancelled"
    assert (mood, code) == ("hasty", CODE.DEADLINE_EXCEEDED), (
        f"a call that was {mood} has ended with {code}: {future.details()}"
    )
    return "late"


def with_frames(port: int, rng: random.Random, ended: collections.Counter[str]) -> None:
    """One connection by hand: what was not cancelled has exactly one answer, which is its own; sometimes it is torn."""
    kept: dict[int, bytes] = {}
    cancelled = []
    with Raw(port) as client:
        client.read_freely()
        for stream in range(1, 2 * AT_ONCE, 2):
            payload, in_stream, goes = payload_of(rng), rng.random() < 0.2, rng.random() < 0.3
            sent = message(payload)
            client.send(client.headers(stream, fields(STREAM_PATH) if in_stream else None))
            if goes:
                cancelled.append(stream)
                client.upload(stream, sent[: rng.randint(0, len(sent))], end=False)
            else:
                kept[stream] = message(answered(payload) if in_stream else payload)
                client.upload(stream, sent)
            if goes and rng.random() < 0.5:
                client.send(reset(cancelled.pop()))
                ended["cancelled"] += 1
        client.send(*(reset(stream) for stream in cancelled))
        ended["cancelled"] += len(cancelled)
        if rng.random() < 0.1:
            client.abort()
            ended["lost by the client"] += len(kept)
            return
        for stream, expected in kept.items():
            seen = client.seen(stream)
            assert seen.data == expected, f"not its one answer, {client.goodbye}"
            assert seen.status == 0
        ended["answered"] += len(kept)


def soak(calls: int, report: Callable[[str], None] = print) -> collections.Counter[str]:
    """Makes so many calls, and says how many ended how. Raises `AssertionError` where one was lost, or something is left."""
    tally = Tally(calls)
    with EdgeProcess() as server:

        def run(converse: Callable[[int, random.Random, collections.Counter[str]], None], number: int) -> None:
            rng = random.Random(number)
            while tally.begin(AT_ONCE):
                ended: collections.Counter[str] = collections.Counter()
                try:
                    converse(server.port, rng, ended)
                except (AssertionError, KeyError, OSError, grpc.RpcError) as error:
                    tally.fail(repr(error))
                tally.count(ended)

        with Raw(server.port):
            before, warm = settled(server), None
            clients = [
                threading.Thread(target=run, args=(converse, number))
                for number, converse in enumerate([with_grpcio] * GRPC_CLIENTS + [with_frames] * RAW_CLIENTS)
            ]
            for client in clients:
                client.start()
            begun = time.monotonic()
            while alive := [client for client in clients if client.is_alive()]:
                alive[0].join(1)
                status = server.status()
                warm = warm or (status if tally.part_done > min(calls / 5, 50_000) else None)
                memory = f"{status['resident_bytes'] / 2**20:.0f} MB, {status['descriptors']} descriptors"
                report(f"{time.monotonic() - begun:.0f} s: {tally.part_done} calls, {memory}")
            assert not tally.failures, "; ".join(tally.failures)
            status = settled(server)
            assert status["asked"] == status["answered"]
            assert status["descriptors"] == before["descriptors"]
            grown = status["resident_bytes"] - warm["resident_bytes"] if warm else 0
            assert grown < GROWTH_BYTES, f"the memory has grown by {grown} bytes"
    return tally.ended


def main() -> int:
    parser = argparse.ArgumentParser(description="A great many calls against the edge on nghttp2.")
    parser.add_argument("--calls", type=int, default=1_000_000, help="how many (default 1000000)")
    ended = soak(parser.parse_args().calls)
    print(f"{ended.total()} calls:", ", ".join(f"{count} {how}" for how, count in ended.most_common()))
    return 0


if __name__ == "__main__":
    sys.exit(main())
