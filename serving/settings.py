"""Every decision of the command line, as plain data."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from serving.loading.measurements import Measurements, checked_cache
from serving.loading.order import AUTO, OFF, ServerDefaults
from serving.sequences.disk import Disk
from serving.sequences.file_disk import MEMORY, Durability, open_disk


@dataclasses.dataclass(frozen=True, kw_only=True)
class Settings:
    """Every decision of the command line; see `lstm-serve --help` for what each means."""

    model_repository: Sequence[Path]
    server_name: str = "lstm-serving"
    host: str = "127.0.0.1"
    grpc_port: int = 8001
    metrics_port: int = 8002
    edge: str = "auto"
    grpc_keepalive_time: float = 120.0
    grpc_keepalive_timeout: float = 20.0
    grpc_max_connection_idle: float = 0.0
    grpc_max_connection_age: float = 0.0
    grpc_max_connection_age_grace: float = 0.0
    backend: str = AUTO
    device: str = "cpu"
    threads: int | None = None
    optimize_for: Literal["latency", "throughput"] = "latency"
    fallback: str = "runtime"
    trial: str = "auto"
    auto_cache: str | None = None
    breaker_failures: int = 3
    breaker_reset: float = 30.0
    allow_tf32: bool = False
    require_verified: bool = False
    row_watch: float = 0.01
    stateful: Sequence[str] = ()
    sequence_store: str = MEMORY
    sequence_durability: Durability = "process"
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

    def measurements(self) -> Measurements:
        """What is known of how fast versions are. Raises `StartupError` where it cannot be kept in the folder named for it."""
        if self.auto_cache is None:
            return Measurements(allow_tf32=self.allow_tf32)
        folder = None if self.auto_cache == OFF else checked_cache(self.auto_cache)
        return Measurements(allow_tf32=self.allow_tf32, cache=lambda: folder)

    def disk(self) -> Disk | None:
        """What sequences outlive the server on, opened; None where they are in memory alone. Raises `StoreUnusable`."""
        return open_disk(self.sequence_store, self.sequence_durability)

    @property
    def defaults(self) -> ServerDefaults:
        """Where models are served unless their configuration says so."""
        return ServerDefaults(
            backend=self.backend,
            device=self.device,
            threads=self.threads,
            allow_tf32=self.allow_tf32,
            require_verified=self.require_verified,
            optimize_for=self.optimize_for,
            fallback=self.fallback,
            trial=self.trial,
            row_watch=self.row_watch,
            stateful=tuple(self.stateful),
        )
