"""What stands between a worker and its backend: pieces of requests go in, an outcome for each comes out.

A worker knows nothing of rows and steps; a computation knows nothing of queues and clients.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, Protocol

from serving.backends.base import Backend
from serving.batching import rows
from serving.batching.pending import Piece
from serving.clock import SYSTEM, Clock
from serving.signature.spec import ModelSpec
from serving.signature.tensors import Tensors


class Ready(NamedTuple):
    """The outputs that the piece wants."""

    outputs: Tensors


class Failed(NamedTuple):
    """The piece could not be computed; nothing has happened to it."""

    error: Exception


Outcome = Ready | Failed


class Computation(Protocol):
    """Owned by one worker: `run` is never called from two threads at once and never raises.

    It gives an outcome for each piece, in their order, and stamps `started` and `computed` on what is ready. `close`
    frees the backend; nothing is called after it.
    """

    def run(self, pieces: Sequence[Piece]) -> Sequence[Outcome]: ...

    def close(self) -> None: ...


class Stateless:
    """All pieces in one call of the backend; nothing is kept between calls."""

    def __init__(self, backend: Backend, spec: ModelSpec, clock: Clock = SYSTEM) -> None:
        self._backend = backend
        self._spec = spec
        self._steps_axes = {tensor.name: tensor.steps_axis for tensor in spec.outputs if tensor.steps_axis is not None}
        self._clock = clock

    def run(self, pieces: Sequence[Piece]) -> Sequence[Outcome]:
        """See `Computation.run`. One call, so that either every piece is ready or every piece has failed."""
        try:
            inputs = rows.gather(pieces, self._spec)
            started = self._clock.now_ns()
            results = self._backend.run(inputs, rows.wanted(pieces))
            computed = self._clock.now_ns()
            outcomes = [Ready(answer) for answer in rows.scatter(pieces, results, self._steps_axes)]
        except Exception as error:  # noqa: BLE001 - border: whatever a runtime raises, the worker decides what it means
            return [Failed(error)] * len(pieces)
        for piece in pieces:
            piece.pending.timeline.started, piece.pending.timeline.computed = started, computed
        return outcomes

    def close(self) -> None:
        """See `Computation.close`."""
        self._backend.close()
