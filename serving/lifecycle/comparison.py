"""How far a shadow's answer is from what the client got, and what became of all the copies."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence

import numpy as np

from serving.signature.spec import ModelSpec
from serving.signature.tensors import Tensors
from serving.verification import golden

OUTCOMES = ("compared", "failed", "dropped")


class ShadowCounts:
    """What became of the copies, and how far apart the answers were."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.requests = dict.fromkeys(OUTCOMES, 0)
        self.largest_difference = 0.0
        self.classes = {True: 0, False: 0}  # rows whose best class is the same, and those whose is not

    def ended(self, outcome: str) -> None:
        """A copy has ended; `outcome` is one of `OUTCOMES`."""
        with self.lock:
            self.requests[outcome] += 1

    def compared(self, difference: float, agreeing: Sequence[bool]) -> None:
        """Two answers were this far apart, and on these rows of the same class."""
        with self.lock:
            self.requests["compared"] += 1
            self.largest_difference = max(self.largest_difference, difference)
            for same in agreeing:
                self.classes[same] += 1


class Comparison:
    """One request and its copy; whichever answer comes second hands both on.

    `give_up_copy` is called when there will be nothing to compare; harmless where the copy has ended.
    """

    def __init__(self, done: Callable[[Comparison], None], counts: ShadowCounts) -> None:
        self.counts = counts
        self.answer: Tensors = {}
        self.copy: Tensors = {}
        self.give_up_copy: Callable[[], None] = lambda: None
        self._done = done
        self._missing = 2
        self._lock = threading.Lock()

    def answered(self, outputs: Tensors) -> None:
        """What the client gets."""
        self.answer = outputs
        self._one_less()

    def shadow_answered(self, outputs: Tensors) -> None:
        """What the shadow says."""
        self.copy = outputs
        self._one_less()

    def give_up(self) -> None:
        """One of the two has no answer, so there is nothing to compare."""
        with self._lock:
            self._missing = -1
        self.give_up_copy()

    def _one_less(self) -> None:
        with self._lock:
            self._missing -= 1
            done = self._missing == 0
        if done:
            self._done(self)


def compare(answer: Tensors, copy: Tensors, spec: ModelSpec) -> tuple[float, list[bool]]:
    """The largest `|copy - answer| / max(1, |answer|)` over all outputs, and for each row whether the best class is the same."""
    state = {pair.output for pair in spec.state}
    alike = [name for name in answer if name not in state or copy[name].shape == answer[name].shape]
    difference = max((golden.disagreement(copy[name], answer[name]) for name in alike), default=0.0)
    classes = answer.get(spec.labels_of)
    if classes is None or classes.ndim != 2:
        return difference, []
    same = np.argmax(classes, axis=1) == np.argmax(copy[spec.labels_of], axis=1)
    return difference, [bool(row) for row in same]
