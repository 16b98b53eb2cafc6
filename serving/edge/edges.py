"""Which edge a server has: ours on nghttp2, or the public `grpc.server`."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Sequence
from importlib import metadata
from typing import TYPE_CHECKING, NamedTuple, Protocol

from serving.errors import StartupError

if TYPE_CHECKING:  # the command line asks for the names alone
    from serving.edge.health import HealthState
    from serving.edge.links import Counts
    from serving.edge.tls import Certificates
    from serving.edge.tokens import Tokens
    from serving.edge.traffic import AskAll, Limits
    from serving.protocol.methods import Method

AUTO, NGHTTP2, GRPCIO = NAMES = ("auto", "nghttp2", "grpcio")
# What the versions of `ngh2` begin with that were tested; it is young, and another one may mean something else.
TESTED = ("0.3.",)


class Edge(Protocol):
    """A port that is open. `port` is its number; `counts` what is told of its connections, where it knows."""

    @property
    def port(self) -> int: ...

    @property
    def counts(self) -> Counts | None: ...

    def stop(self, grace_seconds: float, busy: Callable[[], bool], refuse: Callable[[], None]) -> bool: ...


class Chosen(NamedTuple):
    """An edge: one of `NAMES` but auto, the version of what it stands on, and why it is not the other, or ""."""

    name: str
    version: str
    why: str = ""


def choose(asked: str) -> Chosen:
    """The edge for what was asked. Raises `StartupError` where that is not to be had."""
    if asked == GRPCIO:
        return Chosen(GRPCIO, metadata.version("grpcio"))
    try:
        version = metadata.version("ngh2")
        problem = (
            "" if version.startswith(TESTED) else f"ngh2 {version} is installed, which was not tested with this server"
        )
        importlib.import_module("ngh2")
    except metadata.PackageNotFoundError:
        problem = "ngh2 is not installed"
    except ImportError as error:
        problem = f"ngh2 is installed and cannot be loaded: {error}"
    if not problem:
        return Chosen(NGHTTP2, version)
    if asked == NGHTTP2:
        raise StartupError(f"--edge nghttp2: {problem}; install 'ngh2=={TESTED[0]}*', or use --edge grpcio")
    return Chosen(GRPCIO, metadata.version("grpcio"), problem)


def open_edge(
    chosen: Chosen,
    infer_all: AskAll,
    methods: Sequence[Method],
    health: HealthState,
    host: str,
    port: int,
    *,
    limits: Limits,
    certificates: Certificates | None,
    tokens: Tokens | None,
    turned_away: Callable[[str], None],
) -> Edge:
    """Opens the port. Raises `StartupError` when the address cannot be bound."""
    if chosen.name == NGHTTP2:
        from serving.edge import nghttp2_server

        server: Callable[..., Edge] = nghttp2_server.Nghttp2Server
    else:
        from serving.edge import grpc_server

        server = grpc_server.GrpcServer
    return server(
        infer_all,
        methods,
        health,
        host,
        port,
        limits=limits,
        certificates=certificates,
        tokens=tokens,
        turned_away=turned_away,
    )
