"""A closed loop in a process of its own, whose requests are spread evenly over many connections.

    python benchmarks/connections_client.py HOST:PORT CONNECTIONS IN_FLIGHT

Connects all, then reads numbers from its standard input, one a line: so many requests to send. It says "done" when they are
answered, and when it is connected.
"""

from __future__ import annotations

import asyncio
import subprocess
import sys
from pathlib import Path
from types import TracebackType

import grpc

from benchmarks import layer
from serving.protocol.methods import INFER, SERVICE

ROOT = Path(__file__).parents[1]
DONE = "done"


class Client:
    """Such a process, connected; a context manager that ends it."""

    def __init__(self, address: str, connections: int, in_flight: int) -> None:
        command = [sys.executable, __file__, address, str(connections), str(in_flight)]
        self._process = subprocess.Popen(
            command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env={"PYTHONPATH": str(ROOT)}
        )
        self._wait()

    def run(self, requests: int) -> None:
        """Sends so many requests and waits for their answers."""
        assert self._process.stdin
        print(requests, file=self._process.stdin, flush=True)
        self._wait()

    def _wait(self) -> None:
        assert self._process.stdout
        said = self._process.stdout.readline().strip()
        assert said == DONE, f"the client has ended: {said}"

    def __enter__(self) -> Client:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with self._process:
            self._process.kill()


async def serve(address: str, connections: int, in_flight: int) -> None:
    """Sends what standard input asks for."""
    options = [("grpc.use_local_subchannel_pool", 1)]  # or all channels would share one connection
    channels = [grpc.aio.insecure_channel(address, options) for _ in range(connections)]
    for channel in channels:
        await channel.channel_ready()
    calls = [channel.unary_unary(f"/{SERVICE}/{INFER}") for channel in channels]
    payload = layer.payload(layer.STEPS, 0)

    async def ask(first: int, requests: int) -> None:
        for number in range(first, requests, in_flight):
            await calls[number % connections](payload)

    print(DONE, flush=True)
    while line := await asyncio.to_thread(sys.stdin.readline):
        await asyncio.gather(*(ask(first, int(line)) for first in range(in_flight)))
        print(DONE, flush=True)


if __name__ == "__main__":
    asyncio.run(serve(sys.argv[1], int(sys.argv[2]), int(sys.argv[3])))
