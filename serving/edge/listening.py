"""The listening socket: bound at the start, and given a rest when the process has no descriptors left."""

from __future__ import annotations

import contextlib
import errno
import logging
import select
import socket
from collections.abc import Iterator

from serving.errors import StartupError

log = logging.getLogger(__name__)

BACKLOG = 1024
AT_ONCE = 64  # connections accepted in one turn
_SCARCE = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM)


class Listening:
    """Accepts connections for a poller. Raises `StartupError` when the address cannot be bound."""

    def __init__(self, host: str, port: int, poller: select.epoll) -> None:
        self._poller = poller
        self._socket = _bound(host, port)
        self._resting = False
        self.port: int = self._socket.getsockname()[1]
        self.fd = self._socket.fileno()
        poller.register(self.fd, select.EPOLLIN)

    def accept(self) -> Iterator[tuple[socket.socket, str]]:
        """The connections that wait, not blocking, and who has opened each."""
        for _ in range(AT_ONCE):
            try:
                accepted, address = self._socket.accept()
            except (BlockingIOError, InterruptedError):
                return
            except OSError as error:
                if error.errno in _SCARCE:
                    log.error("no connection can be accepted for now: %s; see `ulimit -n`", error.strerror)
                    self._resting = True
                    self._poller.modify(self.fd, 0)
                    return
                continue  # that one has gone already
            accepted.setblocking(False)
            with contextlib.suppress(OSError):  # it has gone already, which reading will tell
                accepted.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            yield accepted, f"{address[0]}:{address[1]}"

    @property
    def resting(self) -> bool:
        """Whether connections wait until there is room for them."""
        return self._resting

    def try_again(self) -> None:
        """There may be descriptors now."""
        if self._resting:
            self._resting = False
            self._poller.modify(self.fd, select.EPOLLIN)

    def close(self) -> None:
        """No new connections from now on."""
        if self.fd >= 0:
            self._poller.unregister(self.fd)
            self._socket.close()
            self._resting, self.fd = False, -1


def _bound(host: str, port: int) -> socket.socket:
    try:
        family, kind, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[
            0
        ]
        listener = socket.socket(family, kind)
        try:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind(address)
            listener.listen(BACKLOG)
        except OSError:
            listener.close()
            raise
    except OSError as error:
        shown = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
        raise StartupError(
            f"the gRPC address {shown} cannot be bound: the port is taken or the host is not one of this machine "
            f"({error.strerror}); choose others with --host and --grpc-port"
        ) from error
    listener.setblocking(False)
    return listener
