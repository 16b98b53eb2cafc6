"""One live version of a model: its backend behind its batcher, its counts, and the leases that keep it alive."""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence

from protos import model_config_pb2 as pb
from serving import backends
from serving.batcher import Batcher, Pending
from serving.metrics import ModelMetrics
from serving.spec import ModelSpec


class Model:
    """A version that can answer.

    `config` is the configuration in force; `backend` (our name) and `device` say what computes; `verified` whether its
    golden samples were replayed; `labels` names the classes of `spec.labels_of`; `text_only` whether strings must be
    UTF-8. A leased model is never closed: `close` waits for the last lease to be released.
    """

    def __init__(
        self,
        *,
        name: str,
        version: str,
        spec: ModelSpec,
        config: pb.ModelConfig,
        labels: Sequence[str],
        backend: str,
        device: str,
        verified: bool,
        batcher: Batcher,
        metrics: ModelMetrics,
    ) -> None:
        self.name = name
        self.version = version
        self.spec = spec
        self.config = config
        self.labels = labels
        self.backend = backend
        self.text_only = backends.module(backend).TEXT_ONLY
        self.device = device
        self.verified = verified
        self.metrics = metrics
        self.batcher = batcher
        self._leases = 0
        self._unleased = threading.Condition()

    @property
    def alive(self) -> bool:
        """Whether its worker can still answer."""
        return self.batcher.alive

    def cancel(self, pending: Pending) -> None:
        """The client of a request that was submitted has gone."""
        self.batcher.cancel(pending)

    def submit(self, pending: Pending) -> None:
        """Queues a request; raises what `Batcher.submit` raises."""
        self.batcher.submit(pending)

    def lease(self) -> Lease:
        """Keeps this version alive until the lease is released."""
        with self._unleased:
            self._leases += 1
        return Lease(self)

    def release(self) -> None:
        """Gives one lease back; called by `Lease` alone."""
        with self._unleased:
            self._leases -= 1
            if not self._leases:
                self._unleased.notify_all()

    def close(self, timeout_seconds: float | None = None) -> bool:
        """Answers what is queued, waits for the last lease, and frees the backend. Nothing may lease it any more.

        False when that took longer than the time given; the backend is then left to the end of the process.
        """
        until = None if timeout_seconds is None else time.monotonic() + timeout_seconds
        self.batcher.hurry()
        with self._unleased:
            if not self._unleased.wait_for(lambda: not self._leases, timeout_seconds):
                return False
        return self.batcher.drain(None if until is None else max(0.0, until - time.monotonic()))


class Lease:
    """The right to use a model; released exactly once, on whichever thread completes the request."""

    __slots__ = ("model",)

    def __init__(self, model: Model) -> None:
        self.model = model

    def release(self) -> None:
        """The request is done with the model."""
        self.model.release()
