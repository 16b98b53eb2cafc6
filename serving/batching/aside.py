"""A backend whose long calls are computed aside: on a thread that goes after those of the edge and of short calls.

A call of a large model takes the time of hundreds of a small one, and no runtime can be stopped in the middle. So the order
of calls is left to whoever can: the system, which takes a core away from a thread that stands behind (`machine.priority`) as
soon as another one wants it. Only the runtime's call goes there. What the worker does before and after holds the
interpreter's lock, for which everybody waits.

Which calls are long is learned by their size: up to one size they are known to be short, from another one on to be long, and
what is between is measured, by the processor's time, since others make the clock's longer.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from serving.backends.base import Backend
from serving.clock import SYSTEM, Clock, Thread
from serving.machine import background, priority
from serving.signature.tensors import Tensors

LONG_NS = 5_000_000  # little more than the system lets a thread compute before it looks at the others


class Aside:
    """Owned by one thread, as any backend; see `serving.backends.base.Backend`. With `always` no call counts as short.

    Calls aside stand `steps` of nice behind.
    """

    def __init__(
        self, backend: Backend, clock: Clock = SYSTEM, *, steps: int = priority.LONG_CALLS, always: bool = False
    ) -> None:
        self._backend = backend
        self._clock = clock
        self._other = _Other(clock, steps)
        self._short = -1  # elements of the first input up to which a call is short
        self._long: float = -1 if always else math.inf  # and from which on it is long
        self._always = always

    def run(self, inputs: Tensors, outputs: Sequence[str]) -> Tensors:
        """See `Backend.run`."""
        size = next(iter(inputs.values())).size
        if size <= self._short:
            began = self._clock.now_ns()
            answer = self._backend.run(inputs, outputs)
            if self._clock.now_ns() - began >= LONG_NS:
                self._short = size - 1  # somebody else may have made it so long: the next one is measured
            return answer
        call = _Call(self._backend, inputs, outputs, self._clock)
        if size >= self._long:
            self._other.run(call)
            background.computed_elsewhere(call.computed_ns / 1e9)
        else:
            call()
        answer = call.answer()
        if not self._always:
            self._learn(size, call.computed_ns)
        return answer

    def close(self) -> None:
        """See `Backend.close`."""
        self._other.end()
        self._backend.close()

    def _learn(self, size: int, computed_ns: int) -> None:
        if computed_ns < LONG_NS:
            self._short = max(self._short, size)
            self._long = max(self._long, size + 1)
        else:
            self._short = min(self._short, size - 1)
            self._long = min(self._long, size)


class _Call:
    """A call of a backend, made once, on any thread: what came of it, and the processor's time of that thread."""

    def __init__(self, backend: Backend, inputs: Tensors, outputs: Sequence[str], clock: Clock) -> None:
        self._backend = backend
        self._inputs = inputs
        self._outputs = outputs
        self._clock = clock
        self._answer: Tensors = {}
        self._error: BaseException | None = None
        self.computed_ns = 0

    def __call__(self) -> None:
        began = self._clock.computed_ns()
        try:
            self._answer = self._backend.run(self._inputs, self._outputs)
        except BaseException as error:  # noqa: BLE001 - border: raised by `answer`, to whoever has asked
            self._error = error
        self.computed_ns = self._clock.computed_ns() - began

    def answer(self) -> Tensors:
        """Raises what the backend has raised."""
        if self._error is not None:
            raise self._error
        return self._answer


class _Other:
    """A thread that stands behind, and does one thing at a time for somebody who waits; it begins with the first."""

    def __init__(self, clock: Clock, steps: int) -> None:
        self._clock = clock
        self._steps = steps
        self._changed = clock.condition()
        self._work: Callable[[], None] | None = None
        self._ended = False
        self._thread: Thread | None = None

    def run(self, work: Callable[[], None]) -> None:
        """Returns when it is done. `work` raises nothing."""
        with self._changed:
            if self._thread is None:
                self._thread = self._clock.start(self._live, "computes aside")
            self._work = work
            self._changed.notify_all()
            self._changed.wait_for(lambda: self._work is None)

    def end(self) -> None:
        """Nothing more comes."""
        with self._changed:
            self._ended = True
            self._changed.notify_all()
        if self._thread:
            self._thread.join()

    def _live(self) -> None:
        priority.stand_behind(self._steps)
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._work or self._ended)
                work = self._work
            if work is None:
                return
            work()
            work = None  # it holds what was asked and answered
            with self._changed:
                self._work = None
                self._changed.notify_all()
