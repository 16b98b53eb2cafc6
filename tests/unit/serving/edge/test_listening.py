"""The listening socket: one address, connections as they come, and a rest when there are no descriptors left."""

from __future__ import annotations

import errno
import logging
import select
import socket
from collections.abc import Iterator

import pytest

from serving.edge.listening import AT_ONCE, Listening
from serving.errors import StartupError

HOST = "127.0.0.1"


@pytest.fixture
def poller() -> Iterator[select.epoll]:
    with select.epoll() as epoll:
        yield epoll


@pytest.fixture
def listening(poller: select.epoll) -> Iterator[Listening]:
    opened = Listening(HOST, 0, poller)
    yield opened
    opened.close()


def connect(listening: Listening, count: int = 1) -> list[socket.socket]:
    return [socket.create_connection((HOST, listening.port)) for _ in range(count)]


def close(*sockets: socket.socket) -> None:
    for each in sockets:
        each.close()


def test_connections_are_accepted_as_they_come_and_never_block(listening: Listening, poller: select.epoll) -> None:
    assert poller.poll(0) == []
    assert list(listening.accept()) == []
    clients = connect(listening, 3)
    assert poller.poll(10) == [(listening.fd, select.EPOLLIN)]
    accepted = list(listening.accept())
    assert [each.getpeername() for each, _ in accepted] == [each.getsockname() for each in clients]
    assert [peer for _, peer in accepted] == ["{}:{}".format(*each.getsockname()) for each in clients]
    for each, _ in accepted:
        assert not each.getblocking()
        assert each.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
    close(*clients, *[each for each, _ in accepted])


def test_only_so_many_are_accepted_in_one_turn(listening: Listening) -> None:
    clients = connect(listening, AT_ONCE + 2)
    first, then = list(listening.accept()), list(listening.accept())
    assert (len(first), len(then)) == (AT_ONCE, 2)
    close(*clients, *[each for each, _ in (*first, *then)])


class Failing:
    """A socket of which accepting fails so often, in these ways, before it works again."""

    def __init__(self, listener: socket.socket, *errors: int) -> None:
        self._listener = listener
        self._errors = list(errors)

    def accept(self) -> tuple[socket.socket, object]:
        if self._errors:
            raise OSError(self._errors.pop(0), "it fails")
        return self._listener.accept()

    def close(self) -> None:
        self._listener.close()


@pytest.mark.parametrize("scarce", [errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM])
def test_without_descriptors_it_rests_and_tries_again(
    scarce: int, listening: Listening, poller: select.epoll, caplog: pytest.LogCaptureFixture
) -> None:
    """Connections that cannot be accepted stay readable: a loop that looked at them would do nothing else."""
    listening._socket = Failing(listening._socket, scarce)  # type: ignore[assignment]
    clients = connect(listening)
    assert list(listening.accept()) == []
    assert listening.resting
    assert [record.message for record in caplog.records] == [
        "no connection can be accepted for now: it fails; see `ulimit -n`"
    ]
    assert [record.levelno for record in caplog.records] == [logging.ERROR]
    assert poller.poll(0) == [], "nothing is told while it rests"
    listening.try_again()
    assert not listening.resting
    assert poller.poll(10) == [(listening.fd, select.EPOLLIN)]
    accepted = list(listening.accept())
    assert len(accepted) == 1
    close(*clients, *[each for each, _ in accepted])


@pytest.mark.parametrize("error", [errno.ECONNABORTED, errno.EPROTO, errno.EPERM])
def test_a_connection_that_has_gone_already_holds_up_no_other(error: int, listening: Listening) -> None:
    listening._socket = Failing(listening._socket, error, error)  # type: ignore[assignment]
    clients = connect(listening)
    accepted = list(listening.accept())
    assert len(accepted) == 1
    assert not listening.resting
    close(*clients, *[each for each, _ in accepted])


def test_a_closed_one_lets_nobody_in_and_may_be_closed_again(listening: Listening, poller: select.epoll) -> None:
    port = listening.port
    listening.close()
    listening.close()
    assert listening.fd == -1
    assert not listening.resting
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection((HOST, port))
    assert poller.poll(0) == []
    listening.try_again()


def test_one_that_rests_is_closed_for_good(listening: Listening, poller: select.epoll) -> None:
    listening._socket = Failing(listening._socket, errno.EMFILE)  # type: ignore[assignment]
    clients = connect(listening)
    assert list(listening.accept()) == []
    listening.close()
    assert not listening.resting
    listening.try_again()
    assert poller.poll(0) == []
    close(*clients)


@pytest.mark.parametrize(
    ("host", "shown"), [(HOST, HOST), ("::1", "[::1]"), ("192.0.2.1", "192.0.2.1"), ("no such host", "no such host")]
)
def test_an_address_that_cannot_be_bound_is_told_with_what_to_do(host: str, shown: str, poller: select.epoll) -> None:
    try:
        taken = socket.create_server((host, 0), family=socket.AF_INET6 if ":" in host else socket.AF_INET)
    except OSError:  # none of this machine, which is the case to be told of
        taken, number = None, 8001
    else:
        number = taken.getsockname()[1]
    with pytest.raises(StartupError) as told:
        Listening(host, number, poller)
    assert str(told.value).startswith(
        f"the gRPC address {shown}:{number} cannot be bound: the port is taken or the host"
    )
    assert str(told.value).endswith("choose others with --host and --grpc-port")
    if taken:
        taken.close()
