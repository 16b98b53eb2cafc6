"""What clients send to the edge, as it was recorded: what `tests/support/edge_fuzz.py` changes.

    python -m tests.support.edge_recordings tests/data/edge

records them anew: a proxy between a client of grpcio and the edge keeps what goes up.
"""

from __future__ import annotations

import contextlib
import functools
import socket
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import grpc

from serving.edge.http2 import PREFACE
from serving.protocol.call import Call
from serving.protocol.methods import INFER, SERVICE, STREAM_INFER
from tests.support.edge_port import edge
from tests.support.grpc_port import WAIT_SECONDS, echo

FOLDER = Path(__file__).parents[1] / "data" / "edge"
WAITS = b"waits"  # what a message begins with that is not answered


@functools.cache
def recordings() -> Mapping[str, list[bytes]]:
    """The frames of each conversation behind the preface, by name."""
    return {path.stem: frames(path.read_bytes()[len(PREFACE) :]) for path in sorted(FOLDER.glob("*.bin"))}


def frames(sent: bytes) -> list[bytes]:
    """Cut into frames."""
    found = []
    while sent:
        length = 9 + int.from_bytes(sent[:3], "big")
        found.append(sent[:length])
        sent = sent[length:]
    return found


def unary(client: grpc.Channel) -> None:
    ask = client.unary_unary(f"/{SERVICE}/{INFER}")
    for payload in (b"", b"hello", b"x" * 2000):
        ask(payload, timeout=WAIT_SECONDS, metadata=[("x-name", "value"), ("x-bin", b"\0\xff")])


def large(client: grpc.Channel) -> None:
    client.unary_unary(f"/{SERVICE}/{INFER}")(b"x" * 70_000, timeout=WAIT_SECONDS)


def at_once(client: grpc.Channel) -> None:
    asked = [client.unary_unary(f"/{SERVICE}/{INFER}").future(b"%d" % n, timeout=WAIT_SECONDS) for n in range(20)]
    for each in asked:
        each.result()


def compressed(client: grpc.Channel) -> None:
    ask = client.unary_unary(f"/{SERVICE}/{INFER}")
    for compression in (grpc.Compression.Gzip, grpc.Compression.Deflate):
        ask(b"x" * 5000, timeout=WAIT_SECONDS, compression=compression)


def stream(client: grpc.Channel) -> None:
    for _ in client.stream_stream(f"/{SERVICE}/{STREAM_INFER}")(iter([b"x" * 100] * 20), timeout=WAIT_SECONDS):
        pass


def cancelled(client: grpc.Channel) -> None:
    ask, open_stream = client.unary_unary(f"/{SERVICE}/{INFER}"), client.stream_stream(f"/{SERVICE}/{STREAM_INFER}")
    with contextlib.suppress(grpc.RpcError):
        ask(WAITS, timeout=0.05)
    opened = open_stream(iter([b"x", b"x", WAITS]), timeout=WAIT_SECONDS)
    next(opened)
    opened.cancel()
    ask(b"last", timeout=WAIT_SECONDS)


def services(client: grpc.Channel) -> None:
    client.unary_unary("/grpc.health.v1.Health/Check")(b"", timeout=WAIT_SECONDS)
    watch = client.unary_stream("/grpc.health.v1.Health/Watch")(b"", timeout=WAIT_SECONDS)
    next(watch)
    watch.cancel()
    reflect = client.stream_stream("/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo")
    for _ in reflect(iter([b":\0"]), timeout=WAIT_SECONDS):
        pass
    with contextlib.suppress(grpc.RpcError):
        client.unary_unary("/no/method")(b"", timeout=WAIT_SECONDS)


CONVERSATIONS: tuple[Callable[[grpc.Channel], None], ...] = (
    unary, large, at_once, compressed, stream, cancelled, services,
)  # fmt: skip


@contextlib.contextmanager
def recorded(port: int, up: bytearray) -> Iterator[int]:
    """The port of a proxy that keeps what one client sends."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def carry(source: socket.socket, target: socket.socket, kept: bytearray | None) -> None:
            with contextlib.suppress(OSError):
                while data := source.recv(65_536):
                    if kept is not None:
                        kept += data
                    target.sendall(data)
                target.shutdown(socket.SHUT_WR)

        def accept() -> None:
            client, _ = listener.accept()
            with client, socket.create_connection(("127.0.0.1", port)) as server:
                down = threading.Thread(target=carry, args=(server, client, None))
                down.start()
                carry(client, server, up)
                down.join()

        proxy = threading.Thread(target=accept)
        proxy.start()
        yield listener.getsockname()[1]
        proxy.join()


def record(folder: Path) -> None:
    """Writes a file for each conversation."""

    def infer(payload: bytes, call: Call) -> None:
        if not payload.startswith(WAITS):
            echo(payload, call)

    folder.mkdir(parents=True, exist_ok=True)
    for conversation in CONVERSATIONS:
        up = bytearray()
        with edge(infer) as server, recorded(server.port, up) as port:
            options = [("grpc.use_local_subchannel_pool", 1)]
            with grpc.insecure_channel(f"127.0.0.1:{port}", options) as client:
                conversation(client)
        (folder / f"{conversation.__name__}.bin").write_bytes(up)


if __name__ == "__main__":
    record(Path(sys.argv[1]))
