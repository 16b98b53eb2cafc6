"""What a client notices of another one that sends 64 MB in gzip over and over, on the edge alone.

    PYTHONPATH=. python benchmarks/neighbours.py

One client asks for something small, again as soon as it is answered, and its latencies are taken: by itself; while another sends
64 MB to the same server; and while that one sends to another server, which takes as much of the machine and none of the edge.
The message is 64 MB unpacked: zeros, of which 64 KB travel, or numbers that do not pack, of which all do; and unpacked from
the beginning. Rounds alternate; the table has their medians.
"""

from __future__ import annotations

import argparse
import contextlib
import gzip
import os
import random
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator

import grpc

from serving.edge.traffic import Limits
from serving.protocol.methods import INFER, SERVICE
from tests.support.edge_process import EdgeProcess
from tests.support.frames import INFER_PATH, Raw, fields, message

MESSAGE_BYTES = 64 * 2**20
LIMITS = Limits(2 * MESSAGE_BYTES)
KINDS = ("zeros in gzip", "numbers in gzip", "numbers, plain")
ASKED = bytes(300)


def content_of(kind: str) -> bytes:
    """The message as it travels, with its prefix."""
    plain = (
        bytes(MESSAGE_BYTES)
        if kind.startswith("zeros")
        else random.Random(0).randbytes(2**20) * (MESSAGE_BYTES // 2**20)
    )
    return message(gzip.compress(plain, 1), 1) if kind.endswith("gzip") else message(plain)


def send_for_ever(port: int, kind: str) -> None:
    """Sends the message again as soon as it is answered; a line for each."""
    content = content_of(kind)
    said = fields(INFER_PATH, (b"grpc-encoding", b"gzip"))
    while True:
        with Raw(port) as client:
            client.read_freely()
            for stream in range(1, 100, 2):
                client.send(client.headers(stream, said))
                client.upload(stream, content)
                seen = client.seen(stream)
                assert seen.status == 0, seen.said
                print(flush=True)


@contextlib.contextmanager
def neighbour(port: int, kind: str) -> Iterator[None]:
    """A process that does so, while the `with` block lasts, from its second message on."""
    command = [sys.executable, __file__, "--send", kind, "--port", str(port)]
    environ = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    with subprocess.Popen(command, stdout=subprocess.PIPE, env=environ) as process:
        assert process.stdout
        assert process.stdout.readline(), "the other client has ended"
        yield
        process.kill()


def latencies_ms(port: int, seconds: float) -> list[float]:
    """Of one client that asks again as soon as it is answered."""
    taken = []
    with grpc.insecure_channel(f"127.0.0.1:{port}") as client:
        ask = client.unary_unary(f"/{SERVICE}/{INFER}")
        ask(ASKED, timeout=60)
        until = time.perf_counter() + seconds
        while (begun := time.perf_counter()) < until:
            ask(ASKED, timeout=60)
            taken.append((time.perf_counter() - begun) * 1e3)
    return taken


def main() -> int:
    parser = argparse.ArgumentParser(description="What a client notices of one that sends 64 MB in gzip.")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=5.0, help="of each measurement")
    parser.add_argument("--send", choices=KINDS, help=argparse.SUPPRESS)
    parser.add_argument("--port", type=int, help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.send:
        send_for_ever(asked.port, asked.send)
    seen: dict[str, list[tuple[int, float, float]]] = {}
    with EdgeProcess(LIMITS) as server, EdgeProcess(LIMITS) as another:
        cases = [("alone", None, "")]
        for kind in KINDS:
            cases += [(f"{kind}, another server", another.port, kind), (f"{kind}, the same server", server.port, kind)]
        for _ in range(asked.rounds):
            for name, port, kind in cases:
                with neighbour(port, kind) if port else contextlib.nullcontext():
                    taken = latencies_ms(server.port, asked.seconds)
                cuts = statistics.quantiles(taken, n=100)
                seen.setdefault(name, []).append((len(taken), cuts[49], cuts[98]))
    print("| beside | answers | p50, ms | p99, ms |\n|---|---|---|---|")
    for name, rounds in seen.items():
        answers, p50, p99 = (statistics.median(each) for each in zip(*rounds, strict=True))
        print(f"| {name} | {answers:.0f} | {p50:.2f} | {p99:.2f} |")
    return 0


if __name__ == "__main__":
    sys.exit(main())
