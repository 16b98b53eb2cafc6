"""Putting the server together, and its life from the first port to the last answer.

Ports are bound before any model is loaded, so that a busy one is found at once and liveness can be asked for while a
large model loads. Readiness goes before the port does, so that a load balancer stops sending before anything is
refused.
"""

from __future__ import annotations

import contextlib
import dataclasses
import logging
import os
import signal
import threading
import time
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, NoReturn

from prometheus_client import CollectorRegistry, GCCollector, PlatformCollector, ProcessCollector

from commands.version import VERSION
from serving.edge.edges import TESTED, choose, open_edge
from serving.edge.health import HealthState
from serving.edge.metrics_port import MetricsPort
from serving.edge.prometheus import Collector
from serving.edge.tls import Certificates
from serving.edge.tokens import Tokens
from serving.edge.traffic import Limits
from serving.errors import NotInRepository, RepositoryError, StartupError
from serving.lifecycle.control import RepositoryControl
from serving.lifecycle.failovers import Failovers
from serving.lifecycle.manager import ModelManager
from serving.loading import order
from serving.loading.order import AUTO
from serving.protocol.codes import REFUSALS
from serving.protocol.control import Control
from serving.protocol.inference import Inference
from serving.protocol.metadata import Metadata
from serving.protocol.methods import methods
from serving.protocol.sequence_service import SERVICE, SequenceService
from serving.repository import model_config, sent_files
from serving.repository.operator_config import OperatorConfig
from serving.repository.repositories import Repositories
from serving.settings import Settings
from serving.telemetry.ended import Recorder

if TYPE_CHECKING:
    from serving.edge.admin_port import AdminPort

log = logging.getLogger(__name__)

ACTIVE_SECONDS = 2.0  # since its last step, for which a sequence is waited for when the server leaves
LAST_SECONDS = 5.0  # of the exit timeout, or a quarter, which are left for what is in flight then
LOOK_SECONDS = 0.05
STORE_SECONDS = 5.0  # for what is left to be written when everybody has their answer
LOOPBACK = ("127.0.0.1", "::1", "localhost")


class Server:
    """A running server. The constructor binds both ports and starts to load; it raises `StartupError` if it cannot."""

    def __init__(self, settings: Settings) -> None:
        repositories = Repositories(settings.model_repository)
        order.check_defaults(settings.defaults, _configs(repositories))
        _warn_of_unknown(settings.stateful, repositories)
        self._settings = settings
        self._health = HealthState()
        self._telling = threading.Lock()  # what is told last is what was looked at last
        self._manager = ModelManager(self._readiness_changed, disk=settings.disk())
        failovers = Failovers(self._manager, reset_seconds=settings.breaker_reset)
        self._control = RepositoryControl(
            self._manager,
            repositories,
            settings.defaults,
            mode=settings.model_control_mode,
            failures=settings.breaker_failures,
            on_broken=failovers.on_broken,
            measurements=settings.measurements(),
        )
        recorder = Recorder(settings.access_log, REFUSALS)
        self._inference = Inference(self._manager, recorder, max_steps=settings.max_steps)
        self._metadata = Metadata(self._manager, version=VERSION, name=settings.server_name)
        self._chosen = choose(settings.edge)
        certificates, tokens = _certificates(settings), _tokens(settings)
        collector = Collector(self._manager, recorder.refused, self._chosen)
        registry = _registry(collector)
        self._metrics = MetricsPort(settings.host, settings.metrics_port, registry)
        self.metrics_port = self._metrics.port
        self._admin: AdminPort | None = None
        try:
            self._admin = _admin_port(settings, certificates, SequenceService(self._manager, release=VERSION))
            self._edge = open_edge(
                self._chosen,
                self._inference.infer_all,
                methods(self._metadata, Control(self._control, self._metadata)),
                self._health,
                settings.host,
                settings.grpc_port,
                limits=_limits(settings),
                certificates=certificates,
                tokens=tokens,
                turned_away=recorder.turned_away,
            )
        except StartupError:
            self._metrics.close()
            if self._admin:
                self._admin.close()
            self._manager.close_store(STORE_SECONDS)
            raise
        self.grpc_port = self._edge.port
        collector.connections = self._edge.counts
        self._log_start()
        self._starting = True
        self._loader = threading.Thread(target=self._load, name="loader", daemon=True)
        self._loader.start()

    def stop(self) -> bool:
        """Stops being ready, answers what is in flight, frees everything; True if nothing had to be cut off."""
        self._metadata.exiting = True
        self._health.leave()
        log.info("leaving", extra={"fields": {"exit_timeout_seconds": self._settings.exit_timeout_seconds}})
        until = time.monotonic() + self._settings.exit_timeout_seconds
        self._let_sequences_finish(until - min(LAST_SECONDS, self._settings.exit_timeout_seconds / 4))
        if self._admin:  # until now sequences could be taken along
            self._admin.close()
        self._manager.hurry()
        in_time = self._edge.stop(max(0.1, until - time.monotonic()), self._manager.busy, self._inference.refuse)
        self._control.close()
        if in_time and not self.loading:
            in_time = self._manager.close(max(0.1, until - time.monotonic()))
        self._manager.close_store(STORE_SECONDS)
        self._metrics.close()
        self._manager.discard_files()
        log.info("stopped" if in_time else "stopped with requests cut off: the exit timeout was over")
        return in_time

    def _let_sequences_finish(self, until: float) -> None:
        """No sequence begins any more; those that have steps go on, as long as they come, or in the next server."""
        self._manager.refuse_starts()
        if self._manager.store:
            return
        told = False
        while self._manager.sequences_active(ACTIVE_SECONDS) and time.monotonic() < until:
            if not told:
                log.info("sequences that are active go on until they end, or the exit timeout is near")
                told = True
            time.sleep(LOOK_SECONDS)

    @property
    def loading(self) -> bool:
        """Whether models are being loaded."""
        return self._starting or self._manager.is_loading

    @property
    def left_computing(self) -> bool:
        """Whether something that nobody waits for is still computed after `stop`."""
        return self._manager.left_computing

    def _load(self) -> None:
        if swept := sent_files.sweep():
            told = {"folders": [str(folder) for folder in swept]}
            log.info("removed files that were sent to servers which were killed", extra={"fields": told})
        self._control.start(self._settings.load_model)
        self._starting = False
        entries = self._manager.entries()
        fields = {
            "ready": ",".join(f"{e.name}/{e.version}" for e in entries if e.state == "READY") or "none",
            "failed": ",".join(f"{e.name}/{e.version}" for e in entries if e.state != "READY") or "none",
        }
        if not entries and self._settings.model_control_mode == "explicit":
            log.info("ready: models are loaded as clients ask", extra={"fields": fields})
        elif not entries:
            log.warning("ready with no model at all: the repository is empty", extra={"fields": fields})
        elif self._metadata.ready:
            log.info("ready", extra={"fields": fields})
        else:
            log.error("not ready: a model could not be loaded", extra={"fields": fields})
        if self._settings.model_control_mode == "poll":
            self._control.poll(self._settings.repository_poll_secs)

    def _readiness_changed(self) -> None:
        with self._telling:
            self._health.set(self._metadata.ready)

    def _log_start(self) -> None:
        fields = {**dataclasses.asdict(self._settings), "version": VERSION}
        fields |= {"grpc_port": self.grpc_port, "metrics_port": self.metrics_port}
        fields |= {"admin_port": self._admin.port if self._admin else None}
        fields |= {"threads": self._settings.threads or AUTO}
        fields |= {"edge": self._chosen.name, "edge_version": self._chosen.version}
        log.info("serving", extra={"fields": fields})
        if self._chosen.why:
            log.warning(
                "the edge is the public grpc.server, which costs more: %s; try: pip install 'ngh2==%s*'",
                self._chosen.why,
                TESTED[0],
            )


def _configs(repositories: Repositories) -> Iterator[OperatorConfig]:
    """The configurations that can be read; what is wrong with the others is told when their models are loaded."""
    with contextlib.suppress(OSError):
        for name in repositories.models():
            with contextlib.suppress(RepositoryError, NotInRepository):
                yield model_config.parse(repositories.holding(name).config_text(name), name)


def _warn_of_unknown(stateful: Sequence[str], repositories: Repositories) -> None:
    """Of models that --stateful names and that are not there; they may come, where clients or changes of files bring them."""
    with contextlib.suppress(OSError):
        there = repositories.models()
        for name in stateful:
            if name not in there:
                log.warning("--stateful %s makes nothing stateful yet: %s", name, repositories.lacks(name))


def _limits(settings: Settings) -> Limits:
    return Limits(
        message_bytes=settings.max_message_bytes,
        keepalive_seconds=settings.grpc_keepalive_time,
        keepalive_timeout_seconds=settings.grpc_keepalive_timeout,
        idle_seconds=settings.grpc_max_connection_idle,
        age_seconds=settings.grpc_max_connection_age,
        age_grace_seconds=settings.grpc_max_connection_age_grace,
    )


def _certificates(settings: Settings) -> Certificates | None:
    if settings.tls_cert and settings.tls_key:
        return Certificates(settings.tls_cert, settings.tls_key, settings.tls_client_ca)
    if settings.tls_cert or settings.tls_key or settings.tls_client_ca:
        raise StartupError("TLS needs both --tls-cert and --tls-key; --tls-client-ca goes on top of the two")
    return None


def _tokens(settings: Settings) -> Tokens | None:
    if not settings.auth_token_file:
        return None
    tokens = Tokens(settings.auth_token_file, open_health=settings.auth_health == "open")
    if not settings.tls_cert and settings.host not in LOOPBACK:
        log.warning("tokens are asked for on a plain port: anybody on the way can read them; use --tls-cert")
    return tokens


def _admin_port(settings: Settings, certificates: Certificates | None, service: SequenceService) -> AdminPort | None:
    """Where an operator may look after sequences; None, and nothing is imported for it, where nobody may."""
    path, file = settings.admin_socket, settings.admin_token_file
    if not (path or file):
        return None
    from serving.edge.admin_port import AdminPort

    tokens = Tokens(file, open_health=False, flag="--admin-token-file") if file else None
    if tokens and not certificates and settings.host not in LOOPBACK:
        log.warning(
            "the operator's tokens are asked for on a plain port: anybody on the way can read them; use --tls-cert"
        )
    return AdminPort(
        SERVICE,
        service.methods(),
        path=path,
        tokens=tokens,
        host=settings.host,
        port=settings.admin_port,
        certificates=certificates,
    )


def _registry(collector: Collector) -> CollectorRegistry:
    registry = CollectorRegistry()
    for each in (ProcessCollector, PlatformCollector, GCCollector):
        each(registry=registry)
    registry.register(collector)
    return registry


def serve(settings: Settings) -> int:
    """Runs until SIGTERM or SIGINT and returns 0. Raises `StartupError` when the server cannot start.

    A second signal, or the end of the exit timeout, ends the process on the spot with exit code 1: a thread that
    computes cannot be interrupted, and the interpreter would wait for it. The main thread waits at a pipe that Python
    writes every signal to: a wait for a lock can begin just after a signal has come, and would sleep through it.
    """
    signals = 0
    in_time = stopped = False
    read_end, write_end = os.pipe()
    os.set_blocking(write_end, False)

    def on_signal(_number: int, _frame: object) -> None:
        nonlocal signals
        signals += 1
        if signals > 1:
            _leave_now()

    def stop() -> None:
        nonlocal in_time, stopped
        in_time = server.stop()
        stopped = True
        os.write(write_end, b"\0")

    signal.set_wakeup_fd(write_end)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, on_signal)
    server = Server(settings)
    os.read(read_end, 1)
    threading.Thread(target=stop, name="stopping", daemon=True).start()
    while not stopped:  # on a thread of its own, so that this one can take the second signal
        os.read(read_end, 1)
    if not in_time:
        _leave_now()
    if server.loading or server.left_computing:
        _leave_now(0)  # a runtime that is at work on its own thread does not survive the end of the interpreter
    return 0


def _leave_now(code: int = 1) -> NoReturn:
    logging.shutdown()
    os._exit(code)
