"""`auto` after a version serves: what is not known of it is measured when nobody asks, and what is better takes over.

Readiness waits for none of this. A measurement is a child process of low priority, one at a time, which is ended as soon as
a client asks; what it has found by then stays, and the rest is tried again later. The swap is one like any other.
"""

from __future__ import annotations

import contextlib
import dataclasses
import logging
import weakref
from collections import Counter
from collections.abc import Callable, Iterator, Sequence

from serving.backends.base import Candidate, Measured, first_line
from serving.batching.model import Model
from serving.clock import SYSTEM, Clock, Thread
from serving.errors import NotReady, StartupError
from serving.lifecycle.manager import ModelManager
from serving.loading import loader, measuring, telling
from serving.loading.measurements import Measurements
from serving.loading.order import Order, order
from serving.loading.request import Loaded, LoadRequest
from serving.machine import background

log = logging.getLogger(__name__)

MEASURED = "measured"  # why a backend is swapped
IDLE_SECONDS = 5.0  # for which nobody must have asked
LOOK_SECONDS = 1.0  # until it is looked again whether what is being loaded or answered is over
LONGEST_PAUSE_SECONDS = (
    300.0  # between two tries, the first pause being as long as the silence, each later one twice as long
)
MOST_TRIES = 3  # of measuring a backend in a process that somebody else ends, or that hangs; then it stays not measured

Measure = Callable[..., Sequence[Measured]]
LoadIn = Callable[[LoadRequest, Candidate, Order], Loaded]


class Choosing:
    """Looks after what serves by rule in `manager`, on a thread of its own, from `begin` to `close`."""

    def __init__(
        self,
        manager: ModelManager,
        measurements: Measurements,
        *,
        clock: Clock = SYSTEM,
        measure: Measure = measuring.measure,
        load_in: LoadIn = loader.load_in,
    ) -> None:
        self._manager = manager
        self._measurements = measurements
        self._clock = clock
        self._measure = measure
        self._load_in = load_in
        self._changed = clock.condition()  # guards the three below
        self._news = False
        self._ended = False
        self._thread: Thread | None = None
        # Of the thread alone:
        self._left_alone: weakref.WeakSet[Model] = weakref.WeakSet()
        self._tries: weakref.WeakKeyDictionary[Model, Counter[str]] = (
            weakref.WeakKeyDictionary()
        )  # by the backend's name
        self._put_off = 0  # how often in a row
        self._not_before_ns = 0

    def begin(self) -> None:
        """The first load is over."""
        self._manager.silence.broken()
        with self._changed:
            if not self._ended:
                self._thread = self._clock.start(self._run, "choosing backends")

    def look(self) -> None:
        """Something was loaded that may have to be measured. The silence begins anew: more may be loaded."""
        self._manager.silence.broken()
        with self._changed:
            self._news = True
            self._changed.notify_all()

    def close(self, timeout_seconds: float) -> bool:
        """The server leaves: ends a measurement, its process included. False where a swap takes longer than that."""
        with self._changed:
            self._ended = True
            self._changed.notify_all()
            thread = self._thread
        if thread:
            thread.join(timeout_seconds)
        return thread is None or not thread.is_alive()

    def _run(self) -> None:
        while not self._leaving():
            broken_ns = self._manager.silence.broken_ns
            loaded, chosen = self._next()
            if loaded is None or chosen is None:
                with self._changed:
                    self._changed.wait_for(lambda: self._news or self._ended)
                    self._news = False
            elif seconds := self._seconds_to_wait():
                self._tell_what_comes(loaded, chosen)
                with self._changed:
                    self._changed.wait_for(lambda: self._ended, seconds)
            else:
                self._go_on(loaded, chosen, broken_ns)

    def _leaving(self) -> bool:
        return self._ended or self._manager.closing.is_set()

    def _seconds_to_wait(self) -> float:
        """Until it may be measured or swapped; 0 for now."""
        if self._manager.busy() or self._manager.is_loading:
            return LOOK_SECONDS
        return max(self._manager.silence.lacks(IDLE_SECONDS), self._clock.seconds_until(self._not_before_ns))

    def _tell_what_comes(self, loaded: Loaded, chosen: Order) -> None:
        """In the index, until it is done: nobody is to wonder why what was measured does not serve yet."""
        model = loaded.model
        if chosen.unmeasured:
            telling.tell_choice(model, loaded.order, telling.PUT_OFF if self._put_off else "")
        elif chosen.first[0] != model.candidate:
            known = dataclasses.replace(loaded.order, measured=chosen.measured, how=chosen.how)
            telling.tell_choice(model, known, f"being swapped to {chosen.first[0]}")

    def _next(self) -> tuple[Loaded, Order] | tuple[None, None]:
        """A version for which something is to be done, and what is known of it by now."""
        for loaded in self._manager.serving():
            with self._or_left_alone(loaded):
                if loaded.model not in self._left_alone and (chosen := self._order(loaded)):
                    return loaded, chosen
        return None, None

    @contextlib.contextmanager
    def _or_left_alone(self, loaded: Loaded) -> Iterator[None]:
        """What goes wrong ends this thread's work on a model, and on no other. It may be that its files have just gone."""
        try:
            yield
        except Exception as error:
            self._left_alone.add(loaded.model)
            if self._as_loaded(loaded):
                log.exception("choosing a backend for %s failed in a way that was not foreseen", loaded.model.title)
            else:
                why = first_line(error)
                log.info(
                    "left alone, as it was changed or taken away: %s", why, extra={"fields": loaded.request.fields()}
                )

    def _as_loaded(self, loaded: Loaded) -> bool:
        """Whether a version still serves, and its files are those that it was loaded from."""
        try:
            return self._manager.identity_of(loaded.model) == loaded.request.identity()
        except (OSError, StartupError):  # they have gone
            return False

    def _order(self, loaded: Loaded) -> Order | None:
        """Who is to serve a version by what is known now; None where nothing would change, and nothing is to be measured."""
        request, candidate = loaded.request, loaded.model.candidate
        if not loaded.order.possible or loaded.fell_back:
            return None
        if not self._as_loaded(loaded):
            telling.tell_choice(loaded.model, loaded.order, telling.CHANGED)
            return None  # nobody has asked for the new files
        try:
            chosen = order(request.config, request.defaults, request.folder, self._measurements.find, candidate)
        except (OSError, StartupError):  # they have gone
            return None
        settled = chosen.first[0] == candidate and chosen.measured == loaded.order.measured
        return None if settled and not chosen.unmeasured else chosen

    def _go_on(self, loaded: Loaded, chosen: Order, broken_ns: int) -> None:
        with self._or_left_alone(loaded):
            if chosen.unmeasured:
                self._measure_some(loaded, chosen, broken_ns)
            elif chosen.first[0] != loaded.model.candidate:
                self._swap(loaded, chosen)
            else:
                self._settle(loaded, chosen)

    def _measure_some(self, loaded: Loaded, chosen: Order, broken_ns: int) -> None:
        """Measures what is not known yet of one backend."""
        model, request = loaded.model, loaded.request
        backend = chosen.unmeasured[0].backend
        asked = [candidate for candidate in chosen.unmeasured if candidate.backend == backend]
        silence = self._manager.silence

        def given_up() -> bool:
            gone = self._manager.identity_of(model) is None
            return silence.broken_ns != broken_ns or gone or self._manager.is_loading or self._leaving()

        fields = request.fields() | {"backend": backend}
        key = self._measurements.key(request.folder, chosen.possible)
        log.info("measuring", extra={"fields": fields})
        telling.tell_choice(model, loaded.order, telling.BEING_MEASURED)
        try:
            tf32 = request.defaults.allow_tf32
            found = self._measure(request.folder, asked, allow_tf32=tf32, given_up=given_up)
        finally:
            telling.tell_choice(model, loaded.order)
        if not self._as_loaded(loaded):
            return
        tries = self._tries.setdefault(model, Counter())
        tries[backend] += any(one.by_chance for one in found)
        sure = [one for one in found if not one.by_chance or tries[backend] >= MOST_TRIES]
        if not self._measurements.keep(request.folder, chosen.possible, sure, key):
            return
        if silence.broken_ns != broken_ns or len(sure) < len(found):
            self._put_off += 1
            pause = min(IDLE_SECONDS * 2 ** (self._put_off - 1), LONGEST_PAUSE_SECONDS)
            self._not_before_ns = self._clock.now_ns() + int(pause * 1e9)
            why = next((one.failed for one in found if one.by_chance), "clients ask")
            log.info("measured another time: %s", why, extra={"fields": fields | {"not_before_seconds": pause}})
        elif len(found) == len(asked):
            self._put_off = 0

    def _swap(self, loaded: Loaded, chosen: Order) -> None:
        """What is better takes over from what serves, if that still does."""
        request, better = loaded.request, chosen.first[0]
        self._tell_what_comes(loaded, chosen)
        telling.log_figures(MEASURED, request, chosen)
        try:
            with self._manager.at_work(), background.work():
                made = self._load_in(request, better, chosen)
        except Exception as error:
            if not self._as_loaded(loaded):
                raise
            log.warning("%s cannot take over: %s", better, error, extra={"fields": request.fields()})
            self._measurements.keep(request.folder, chosen.possible, [Measured(better, failed=first_line(error))])
            return
        if not self._as_loaded(loaded):  # it may have been loaded from files that nobody has asked for
            made.model.close()
            return
        damaged = telling.damaged(chosen.measured, {}, better)
        made = dataclasses.replace(made, order=chosen.serving(better), damaged=damaged)
        with contextlib.suppress(NotReady):  # the server leaves
            self._manager.exchange(loaded.model, made, MEASURED)

    def _settle(self, loaded: Loaded, chosen: Order) -> None:
        """What serves is the best of what was measured."""
        candidate, fields = loaded.model.candidate, loaded.request.fields()
        damaged = telling.damaged(chosen.measured, {}, candidate)
        telling.log_figures(MEASURED, loaded.request, chosen)
        for backend, why in damaged.items():
            if backend not in loaded.damaged:
                log.warning("not in %s: %s", backend, why, extra={"fields": fields})
        told = dataclasses.replace(loaded, order=chosen.serving(candidate), damaged=damaged)
        if self._manager.tell(loaded, told):
            telling.tell_choice(loaded.model, told.order)
