"""Where an operator looks after sequences: a Unix socket of the server's user, or a port that asks for a token.

It is apart from the gRPC port, so that no client of that ever reaches it. Calls are few, so the public `grpc.server` serves it.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import stat
import tempfile
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import grpc

from serving.edge.grpc_status import abort
from serving.edge.grpc_tls import credentials
from serving.edge.tls import Certificates
from serving.edge.tokens import Tokens
from serving.errors import StartupError
from serving.protocol.codes import answer_for
from serving.protocol.methods import Method, answered

THREADS = 4
MOST_BYTES = 1024**3  # of a file that is put back
MOST_PATH_BYTES = 107  # of a socket's address, as the system bounds it
STOP_SECONDS = 1.0  # for the calls that are open


class AdminPort:
    """Serves the `methods` of `service` where it was told to. Raises `StartupError` where it cannot.

    On the Unix socket `path` whoever may open it may ask, which is the server's user: its mode is 0600. On the TCP port
    `port` of `host` whoever has one of the `tokens` may, over TLS where there are `certificates`. At least one is given.
    """

    def __init__(
        self,
        service: str,
        methods: Sequence[Method],
        *,
        path: Path | None = None,
        tokens: Tokens | None = None,
        host: str = "",
        port: int = 0,
        certificates: Certificates | None = None,
    ) -> None:
        self._path = path
        self._made: tuple[int, int] | None = None  # our socket, so that nobody else's is removed
        self.port: int | None = None
        self._servers: list[Any] = []
        self._pool = ThreadPoolExecutor(THREADS, thread_name_prefix="admin")
        try:
            if path:
                self._serve(service, methods, None, lambda server: self._listen(server, path))
            if tokens:
                address = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
                self._serve(service, methods, tokens, lambda server: self._bind(server, address, certificates))
        except StartupError:
            self.close()
            raise

    def close(self) -> None:
        """Ends what is asked, and removes the socket."""
        for ending in [server.stop(STOP_SECONDS) for server in self._servers]:
            ending.wait(2 * STOP_SECONDS)
        self._pool.shutdown(wait=False, cancel_futures=True)
        if self._path and self._made:
            with contextlib.suppress(OSError):
                if _identity(self._path) == self._made:
                    self._path.unlink()

    def _serve(
        self, service: str, methods: Sequence[Method], tokens: Tokens | None, listen: Callable[[Any], None]
    ) -> None:
        server = grpc.server(
            self._pool,
            options=[
                ("grpc.so_reuseport", 0),
                ("grpc.max_receive_message_length", MOST_BYTES),
                ("grpc.max_send_message_length", MOST_BYTES),
            ],
            interceptors=(_Doorkeeper(tokens),) if tokens else (),
        )
        handlers = {method.name: grpc.unary_unary_rpc_method_handler(_answering(method)) for method in methods}
        server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(service, handlers),))
        self._servers.append(server)
        listen(server)
        server.start()

    def _bind(self, server: Any, address: str, certificates: Certificates | None) -> None:
        try:
            self.port = (
                server.add_secure_port(address, credentials(certificates))
                if certificates
                else server.add_insecure_port(address)
            )
        except RuntimeError as error:
            raise StartupError(
                f"the address {address} of the operator's port cannot be bound: it is taken or the host is not one of this "
                "machine; choose others with --host and --admin-port"
            ) from error

    def _listen(self, server: Any, path: Path) -> None:
        """Makes the socket in a folder that nobody else may enter, and moves it where it belongs when its mode is right."""
        check_socket(path)
        try:
            folder = Path(tempfile.mkdtemp(prefix=".admin-", dir=path.parent))
        except OSError as error:
            raise _cannot_be_made(path, error.strerror) from error
        try:
            fresh = folder / "s"
            if len(os.fsencode(fresh)) > MOST_PATH_BYTES:
                raise _cannot_be_made(path, f"its folder's name is too long: the system allows {MOST_PATH_BYTES} bytes")
            server.add_insecure_port(f"unix:{fresh}")
            fresh.chmod(0o600)
            self._made = _identity(fresh)
            fresh.rename(path)
        except (OSError, RuntimeError) as error:
            raise _cannot_be_made(path, getattr(error, "strerror", None) or error) from error
        finally:
            shutil.rmtree(folder, ignore_errors=True)


def check_socket(path: Path) -> None:
    """Refuses a path where another server listens, or where something else lies. Raises `StartupError`."""
    if len(os.fsencode(path)) > MOST_PATH_BYTES:
        raise _cannot_be_made(path, f"it has more than the {MOST_PATH_BYTES} bytes that the system allows")
    try:
        mode = path.lstat().st_mode
    except FileNotFoundError:
        return
    except OSError as error:
        raise _cannot_be_made(path, error.strerror) from error
    if not stat.S_ISSOCK(mode):
        raise _cannot_be_made(path, "something else than a socket lies there; choose another path")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as asking:
        asking.settimeout(1)
        try:
            asking.connect(os.fspath(path))
        except ConnectionRefusedError:
            return  # of a server that was killed
        except OSError as error:
            raise _cannot_be_made(path, f"what listens there cannot be asked: {error}") from error
    raise _cannot_be_made(path, "another server listens there; stop it, or choose another path")


def _cannot_be_made(path: Path, why: object) -> StartupError:
    return StartupError(f"the socket {path} (--admin-socket) cannot be made: {why}")


def _identity(path: Path) -> tuple[int, int]:
    status = path.lstat()
    return status.st_dev, status.st_ino


def _answering(method: Method) -> Callable[[bytes, grpc.ServicerContext], bytes]:
    def handle(payload: bytes, context: grpc.ServicerContext) -> bytes:
        answer = answered(method, payload)
        return answer if isinstance(answer, bytes) else abort(context, *answer)

    return handle


class _Doorkeeper(grpc.ServerInterceptor):  # type: ignore[misc]
    """Turns calls away that carry none of the tokens, without reading anything of them."""

    def __init__(self, tokens: Tokens) -> None:
        self._tokens = tokens

    def intercept_service(self, continuation: Any, details: grpc.HandlerCallDetails) -> Any:
        """The handler of the call, or one that turns it away."""
        error = self._tokens.refusal(details.method, details.invocation_metadata)
        if error is None:
            return continuation(details)
        code, message = answer_for(error)

        def turn_away(_requests: Any, context: grpc.ServicerContext) -> Any:
            abort(context, code, message)

        return grpc.stream_stream_rpc_method_handler(turn_away)  # which fits every kind of call
