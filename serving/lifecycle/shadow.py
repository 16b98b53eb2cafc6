"""A copy of some requests goes to another version or backend; its answers are compared and thrown away.

Nobody waits for a shadow: it has a model, a queue and a worker of its own, drops what it has no room for, and computes on a
thread that stands behind all others (`serving.batching.aside`): it gets what they leave, and a little of what they want, so
that it is never starved. Answers are compared on a third thread, because the worker that finishes last would otherwise keep its
own clients waiting.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Mapping, Sequence

from serving.batching.model import Model
from serving.batching.pending import Pending
from serving.clock import SYSTEM, Clock
from serving.errors import Cancelled, ServingError, TimedOut
from serving.lifecycle.comparison import Comparison, ShadowCounts, compare
from serving.lifecycle.dealer import Dealer
from serving.signature.spec import ModelSpec
from serving.signature.tensors import Tensors
from serving.telemetry.timeline import Timeline

log = logging.getLogger(__name__)

MOST_WAITING = 64


class Shadow:
    """A model that answers copies of `share` of the requests; `target` is what it is called in metrics.

    `counts` are by the version that was asked, one for each that it follows; a `batching.model.Follower`.
    """

    def __init__(
        self,
        model: Model,
        share: float,
        target: str,
        counts: Mapping[str, ShadowCounts],
        followed: Sequence[Model] = (),
        clock: Clock = SYSTEM,
    ) -> None:
        self.model = model
        self.target = target
        self.counts = counts
        self._followed = tuple(followed)
        self._deal = Dealer(share)
        self._clock = clock
        self._changed = clock.condition()  # guards what follows
        self._waiting: dict[Pending, None] = {}
        self._finished: deque[Comparison] = deque()
        self._ended = False
        self._thread = clock.start(self._compare, f"shadow of {model.name}")

    def follow(self, models: Sequence[Model]) -> None:
        """These are the models that it follows."""
        self._followed = tuple(models)

    def follow_on(self, old: Model | None, new: Model) -> bool:
        """Whether it can follow the model that takes the place of another, and does from now on."""
        others = [model for model in self._followed if model is not old]
        fitting = not fits(self.model.spec, new.spec)
        self.follow([*others, new] if fitting else others)
        return fitting

    def offer(self, version: str, pending: Pending) -> Comparison | None:
        """Queues a copy of a request to `version`, if it belongs to the share and there is room.

        Called from any thread, never blocks.
        """
        if not self._deal():
            return None
        counts = self.counts[version]
        if self.model.load >= MOST_WAITING:
            counts.ended("dropped")
            return None
        taken = as_taken_by(self.model.spec, pending.inputs)
        if taken is None:
            counts.ended("dropped")
            return None
        copy = _Copy(self, Comparison(self._finish, counts), counts, self._clock)
        timeline = Timeline(self._clock.now_ns())
        timeline.decoded = timeline.received
        key = self.model.spec.batch_key(taken, pending.key[0])
        copied = Pending(copy, taken, pending.rows, pending.steps, pending.outputs, key, timeline)
        copy.pending = copied
        copy.comparison.give_up_copy = copied.cancel  # it is not computed for nothing
        self.model.metrics.entered()
        with self._changed:
            self._waiting[copied] = None
        try:
            self.model.submit(copied)
        except ServingError as error:
            copy.finish(Cancelled(str(error)))
            return None
        return copy.comparison

    def ended(self, pending: Pending) -> None:
        """A copy has been answered, or never will be."""
        with self._changed:
            self._waiting.pop(pending, None)

    def close(self, timeout_seconds: float | None = None) -> bool:
        """Ends the shadow; what it still has to do is dropped. False when what it does now took longer than the time given."""
        with self._changed:
            waiting = list(self._waiting)
        for pending in waiting:
            pending.cancel()
        closed = self.model.close(timeout_seconds)
        with self._changed:
            self._ended = True
            self._changed.notify_all()
        self._thread.join()
        return closed

    def _finish(self, comparison: Comparison) -> None:
        """Both answers are there."""
        with self._changed:
            self._finished.append(comparison)
            self._changed.notify_all()

    def _next(self) -> Comparison | None:
        """What is to be compared next, waited for; None when nothing comes any more."""
        with self._changed:
            self._changed.wait_for(lambda: self._finished or self._ended)
            return self._finished.popleft() if self._finished else None

    def _compare(self) -> None:
        while (comparison := self._next()) is not None:
            try:
                difference, agreeing = compare(comparison.answer, comparison.copy, self.model.spec)
            except Exception:
                log.exception("the answers of a shadow cannot be compared")
                comparison.counts.ended("failed")
                continue
            comparison.counts.compared(difference, agreeing)


class _Copy:
    """Who waits for the answer to a copy: nobody but the comparison; see `batching.pending.Requester`."""

    def __init__(self, shadow: Shadow, comparison: Comparison, counts: ShadowCounts, clock: Clock) -> None:
        self.comparison = comparison
        self.pending: Pending | None = None
        self._shadow = shadow
        self._counts = counts
        self._clock = clock

    def encode(self, outputs: Tensors) -> None:
        assert self.pending
        self.pending.timeline.encoded = self._clock.now_ns()
        self.comparison.shadow_answered(outputs)

    def finish(self, error: ServingError) -> None:
        assert self.pending
        self._shadow.ended(self.pending)
        self._counts.ended("dropped" if isinstance(error, Cancelled | TimedOut) else "failed")
        self.comparison.give_up()

    @staticmethod
    def finish_all(requesters: Sequence[_Copy]) -> None:
        for copy in requesters:
            assert copy.pending
            copy._shadow.ended(copy.pending)

    def move(self, lease: object) -> None:
        """A shadow has nobody to hand over to."""


def fits(shadow: ModelSpec, model: ModelSpec) -> str:
    """Why requests to `model` cannot be copied to `shadow`; empty if they can. Recurrent state may have another size."""
    sides = {
        "input": (shadow.advertised_inputs, model.advertised_inputs),
        "output": (shadow.advertised_outputs, model.advertised_outputs),
    }
    for side, (theirs, ours) in sides.items():
        told = [
            {each.name: f"{each.name} {each.datatype} {list(each.shape)}" for each in some} for some in (theirs, ours)
        ]
        if told[0] != told[1]:
            shown = [", ".join(some.values()) for some in told]
            return f"it has the {side}s {shown[0]}, and the model that it is to follow has {shown[1]}"
    return ""


def as_taken_by(shadow: ModelSpec, inputs: Tensors) -> Tensors | None:
    """The inputs, without a state that is new but of another size than the shadow's; None if one of another size is not new."""
    sizes = {tensor.name: tensor.shape[1:] for tensor in shadow.inputs}
    state = [pair.input for pair in shadow.state if not shadow.state_advertised]
    sent = [name for name in state if name in inputs]
    if all(inputs[name].shape[1:] == sizes[name] for name in sent):
        return inputs
    if any(inputs[name].any() for name in sent):
        return None
    return {name: array for name, array in inputs.items() if name not in state}
