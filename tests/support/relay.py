"""A relay between one client and a port of this machine that counts what passes: sizes that libraries of gRPC hide."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Iterator
from types import TracebackType

import grpc

PIECE_BYTES = 65_536


class Relay:
    """Takes one connection and hands its bytes on, both ways, until either side closes; a context manager.

    `asked_bytes` and `answered_bytes` are what has passed so far, frames and headers included.
    """

    def __init__(self, port: int) -> None:
        self.asked_bytes = 0
        self.answered_bytes = 0
        self._listening = socket.create_server(("127.0.0.1", 0))
        self._there = socket.create_connection(("127.0.0.1", port))
        self._thread = threading.Thread(target=self._serve, name="relay")

    def channel(self) -> grpc.Channel:
        """The connection through the relay; it must be closed before the relay is."""
        number = self._listening.getsockname()[1]
        return grpc.insecure_channel(f"127.0.0.1:{number}", [("grpc.use_local_subchannel_pool", 1)])

    def __enter__(self) -> Relay:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for waiting in (self._listening, self._there):  # wakes whoever waits for either
            with contextlib.suppress(OSError):  # the other side has closed it already
                waiting.shutdown(socket.SHUT_RDWR)
        self._thread.join()
        self._listening.close()
        self._there.close()

    def _serve(self) -> None:
        try:
            here, _ = self._listening.accept()
        except OSError:
            return  # closed before anybody came
        with here:
            back = threading.Thread(target=self._answers, args=(here,), name="relay back")
            back.start()
            for piece in _received(here):
                self.asked_bytes += len(piece)
                _hand_on(piece, self._there)
            _hand_on(b"", self._there)
            back.join()

    def _answers(self, here: socket.socket) -> None:
        for piece in _received(self._there):
            self.answered_bytes += len(piece)
            _hand_on(piece, here)
        _hand_on(b"", here)


def _received(connection: socket.socket) -> Iterator[bytes]:
    """What comes, piece by piece, until it ends, however it does."""
    with contextlib.suppress(OSError):
        while piece := connection.recv(PIECE_BYTES):
            yield piece


def _hand_on(piece: bytes, connection: socket.socket) -> None:
    """To a side that may have gone: its own thread sees that. Nothing more comes after an empty piece."""
    with contextlib.suppress(OSError):
        if piece:
            connection.sendall(piece)
        else:
            connection.shutdown(socket.SHUT_RDWR)
