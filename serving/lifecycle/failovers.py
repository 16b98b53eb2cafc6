"""Which failover stands by which version: what a worker calls when its backend is broken."""

from __future__ import annotations

import logging

from serving.batching.model import Lease, Model
from serving.batching.pending import Pending
from serving.clock import SYSTEM, Clock
from serving.errors import ComputeFailed
from serving.lifecycle.failover import Failover, LoadIn, forward
from serving.lifecycle.manager import ModelManager
from serving.loading.loader import load_in
from serving.loading.request import Loaded

log = logging.getLogger(__name__)


class Failovers:
    """Hands the requests of broken backends to the failover of their version. A backend is tried again after `reset_seconds`."""

    def __init__(
        self, manager: ModelManager, *, reset_seconds: float, clock: Clock = SYSTEM, load_in: LoadIn = load_in
    ) -> None:
        self._manager = manager
        self._reset_seconds = reset_seconds
        self._clock = clock
        self._load_in = load_in

    def on_broken(self, model: Model, requests: list[Pending], reason: str, error: Exception) -> None:
        """Requests that a broken backend leaves: to whoever stands in for it, now or as soon as there is somebody.

        Called from a worker's thread. Nobody's request is completed, and no thread started, under the manager's lock.
        """

        name, version = model.name, model.version  # the failover outlives the model, and must not keep it

        def lease() -> Lease:
            return self._manager.acquire(name, version)

        def made(loaded: Loaded) -> Failover:
            return Failover(
                loaded,
                self._reset_seconds,
                self._stand_in,
                lease,
                self._manager.at_work,
                clock=self._clock,
                load_in=self._load_in,
            )

        try:
            while failover := self._manager.failover(model, made):
                if failover.take(requests, reason, error):
                    return
        except RuntimeError as refused:  # by the system; it is tried again with what comes
            log.error("nothing can stand in for %s: %s", model.title, refused)
            for pending in requests:
                pending.requester.finish(ComputeFailed(f"{model.title} failed to compute: {error}; {refused}"))
            return
        forward(requests, lease)  # another model serves already

    def _stand_in(self, new: Loaded, old: Loaded, why: str) -> bool:
        """Lets a model answer instead of the one that served; False, the new one closed, if that does not serve any more."""
        return self._manager.exchange(old.model, new, why, stands_in=True)
