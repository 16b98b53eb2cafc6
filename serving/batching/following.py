"""Who gets copies of requests that a model answers: what the model's side knows of it."""

from __future__ import annotations

from typing import Protocol

from serving.batching.pending import Pending
from serving.signature.tensors import Tensors


class Copy(Protocol):
    """A copy of a request that somebody else answers; it is told of the answer that the client gets."""

    def answered(self, outputs: Tensors) -> None: ...

    def give_up(self) -> None: ...


class Follower(Protocol):
    """Who gets copies of the requests to a model. `offer` never blocks; None where it takes no copy of this one."""

    def offer(self, version: str, pending: Pending) -> Copy | None: ...
