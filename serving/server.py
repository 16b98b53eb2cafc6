"""Putting the server together, and its life from the first port to the last answer.

Ports are bound before any model is loaded, so that a busy one is found at once and liveness can be asked for while a
large model loads. Readiness goes before the port does, so that a load balancer stops sending before anything is
refused.
"""

from __future__ import annotations

import contextlib
import dataclasses
import importlib.metadata
import logging
import os
import signal
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Literal, NoReturn

from prometheus_client import (
    CollectorRegistry,
    GCCollector,
    PlatformCollector,
    ProcessCollector,
    start_http_server,
)

from serving import backends
from serving.edge.grpc_server import Transport
from serving.edge.health import HealthService
from serving.edge.prometheus import Collector
from serving.edge.tls import Certificates, Tokens
from serving.errors import RepositoryError, StartupError
from serving.lifecycle.control import RepositoryControl
from serving.lifecycle.manager import ModelManager
from serving.loading import order, ranking
from serving.loading.order import AUTO, ServerDefaults, first_available
from serving.protocol.service import InferenceService
from serving.repository import model_config
from serving.repository.folders import Repository

log = logging.getLogger(__name__)

LOOPBACK = ("127.0.0.1", "::1", "localhost")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Settings:
    """Every decision of the command line; see `lstm-serve --help` for what each means."""

    model_repository: Path
    host: str = "127.0.0.1"
    grpc_port: int = 8001
    metrics_port: int = 8002
    backend: str = AUTO
    device: str = "cpu"
    threads: int | None = None
    optimize_for: Literal["latency", "throughput"] = "latency"
    fallback: str = "runtime"
    breaker_failures: int = 3
    breaker_reset: float = 30.0
    allow_tf32: bool = False
    require_verified: bool = False
    model_control_mode: str = "none"
    load_model: Sequence[str] = ()
    repository_poll_secs: float = 15.0
    max_steps: int = 4096
    max_message_bytes: int = 128 * 1024 * 1024
    tls_cert: Path | None = None
    tls_key: Path | None = None
    tls_client_ca: Path | None = None
    auth_token_file: Path | None = None
    auth_health: str = "token"
    exit_timeout_seconds: float = 30.0
    access_log: float = 0.0

    @property
    def placement(self) -> ServerDefaults:
        """Where models are served unless their configuration says so."""
        return ServerDefaults(
            backend=self.backend,
            device=self.device,
            threads=self.threads,
            allow_tf32=self.allow_tf32,
            require_verified=self.require_verified,
            optimize_for=self.optimize_for,
            fallback=self.fallback,
        )


def check_placement(placement: ServerDefaults) -> None:
    """Raises `BackendUnavailable` with every reason when no backend that may be used can run on the device asked for."""
    names = backends.PREFERENCE if placement.backend == AUTO else (placement.backend,)
    device = "cpu" if placement.device == AUTO else placement.device
    first_available((name, device) for name in names)


def _may_fall_back_at_load(repository: Repository, fallback: str) -> bool:
    """Whether any model may be served by something else than what the server is told to serve with."""
    if fallback == "always":
        return True
    with contextlib.suppress(OSError):
        for name in repository.models():
            with contextlib.suppress(RepositoryError):  # told when the model is loaded
                if model_config.parse(repository.config_text(name), name).fallback:
                    return True
    return False


class Server:
    """A running server. The constructor binds both ports and starts to load; it raises `StartupError` if it cannot."""

    def __init__(self, settings: Settings) -> None:
        repository = Repository(settings.model_repository)
        if not _may_fall_back_at_load(repository, settings.fallback):
            check_placement(settings.placement)
        self._settings = settings
        self._health = HealthService()
        self._manager = ModelManager(self._readiness_changed, breaker_reset_seconds=settings.breaker_reset)
        self._control = RepositoryControl(
            self._manager,
            repository,
            settings.placement,
            mode=settings.model_control_mode,
            failures=settings.breaker_failures,
        )
        version = importlib.metadata.version("lstm-serving")
        self._service = InferenceService(
            self._manager, self._control, version=version, max_steps=settings.max_steps, access_log=settings.access_log
        )
        certificates, tokens = self._security(settings)
        registry = CollectorRegistry()
        for collector in (ProcessCollector, PlatformCollector, GCCollector):
            collector(registry=registry)
        registry.register(Collector(self._manager, self._service.refused))
        try:
            self._metrics_server, _ = start_http_server(settings.metrics_port, settings.host, registry)
        except OSError as error:
            raise StartupError(
                f"the metrics address {settings.host}:{settings.metrics_port} cannot be bound: {error.strerror}; "
                "choose others with --host and --metrics-port"
            ) from error
        self.metrics_port: int = self._metrics_server.server_port
        try:
            self._transport = Transport(
                self._service,
                self._health,
                settings.host,
                settings.grpc_port,
                max_message_bytes=settings.max_message_bytes,
                certificates=certificates,
                tokens=tokens,
            )
        except StartupError:
            self._stop_metrics()
            raise
        self.grpc_port = self._transport.port
        self._log_start(version)
        self._starting = True
        self._loader = threading.Thread(target=self._load, name="loader", daemon=True)
        self._loader.start()

    def stop(self) -> bool:
        """Stops being ready, answers what is in flight, frees everything; True if nothing had to be cut off."""
        self._service.exit()
        self._health.leave()
        log.info("leaving", extra={"fields": {"exit_timeout_seconds": self._settings.exit_timeout_seconds}})
        until = time.monotonic() + self._settings.exit_timeout_seconds
        self._manager.hurry()
        in_time = self._transport.stop(self._settings.exit_timeout_seconds, self._manager.busy, self._service.refuse)
        if in_time and not self.loading:
            in_time = self._manager.close(max(0.1, until - time.monotonic()))
        self._stop_metrics()
        self._manager.discard_files()
        log.info("stopped" if in_time else "stopped with requests cut off: the exit timeout was over")
        return in_time

    @property
    def loading(self) -> bool:
        """Whether models are being loaded."""
        return self._starting or self._manager.is_loading

    @property
    def left_computing(self) -> bool:
        """Whether something that nobody waits for is still computed after `stop`."""
        return self._manager.left_computing

    def _security(self, settings: Settings) -> tuple[Certificates | None, Tokens | None]:
        certificates = tokens = None
        if settings.tls_cert and settings.tls_key:
            certificates = Certificates(settings.tls_cert, settings.tls_key, settings.tls_client_ca)
        elif settings.tls_cert or settings.tls_key or settings.tls_client_ca:
            raise StartupError("TLS needs both --tls-cert and --tls-key; --tls-client-ca goes on top of the two")
        if settings.auth_token_file:
            tokens = Tokens(
                settings.auth_token_file,
                open_health=settings.auth_health == "open",
                on_refused=self._service.count_refused,
            )
            if not certificates and settings.host not in LOOPBACK:
                log.warning("tokens are asked for on a plain port: anybody on the way can read them; use --tls-cert")
        return certificates, tokens

    def _load(self) -> None:
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
        elif self._service.ready:
            log.info("ready", extra={"fields": fields})
        else:
            log.error("not ready: a model could not be loaded", extra={"fields": fields})
        if self._settings.model_control_mode == "poll":
            self._control.poll(self._settings.repository_poll_secs)

    def _readiness_changed(self) -> None:
        self._health.set(self._service.ready)

    def _stop_metrics(self) -> None:
        self._metrics_server.shutdown()
        self._metrics_server.server_close()

    def _log_start(self, version: str) -> None:
        fields = {**dataclasses.asdict(self._settings), "version": version}
        fields |= {"grpc_port": self.grpc_port, "metrics_port": self.metrics_port}
        fields |= {"threads": self._settings.threads or AUTO}
        log.info("serving", extra={"fields": fields})


def explain(settings: Settings, name: str) -> str:
    """What each version of a model that would be served can be served with, measured now, and which of them `auto` takes.

    Raises `StartupError` when there is no such model or nothing to measure it by.
    """
    repository = Repository(settings.model_repository)
    if name not in repository.models():
        raise StartupError(
            f"there is no model '{name}' in {repository.path}; there are {', '.join(repository.models())}"
        )
    choices = model_config.parse(repository.config_text(name), name)
    folders = {folder.number: folder for folder in repository.versions(name)}
    told = []
    for number in choices.versions(list(folders)):
        if not folders[number].described:
            raise StartupError(
                f"{folders[number].path} has no golden samples: nothing proves that its files compute the same"
            )
        measured = order.measured(choices, settings.placement, folders[number])
        chosen = next((one.candidate for one in measured if not one.failed), None)
        if chosen is None:
            raise StartupError(f"nothing here can serve {name} version {number}\n{ranking.table(measured, None)}")
        said = choices.backend or settings.backend
        note = "" if said == AUTO else f"\n(--backend or config.pbtxt say {said}: nothing is chosen by these figures)"
        told.append(
            f"{name} version {number}, best first for {settings.optimize_for}:\n{ranking.table(measured, chosen)}{note}"
        )
    return "\n\n".join(told)


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
