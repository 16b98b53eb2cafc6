"""A clock whose time and threads are simulated: one seed decides in which order everything happens.

Each simulated thread is a thread of the system, but only one of them runs at any moment: whoever waits, for a lock, a
condition, an event or the time, hands over to another one that is drawn from those that could go on. Time stands still
while anybody can, and then jumps to the next instant at which somebody wants to go on. So an hour passes in a
millisecond, and the same seed gives the same history.
"""

from __future__ import annotations

import random
import threading
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any, ClassVar

from serving import clock

PREEMPTED = 0.15  # the chance to lose one's turn where a lock is taken


class Stuck(AssertionError):
    """Nobody can go on, and no time will come at which anybody could."""


class _Ended(BaseException):
    """Unwinds a thread whose simulation is over."""


class _Task:
    """One simulated thread; `handle` is what `Clock.start` gives."""

    def __init__(self, name: str, work: Callable[[], None]) -> None:
        self.name = name
        self.work = work
        self.turn = threading.Lock()
        self.turn.acquire()
        self.over = False
        self.until: int | None = None  # when it goes on by itself
        self.woken = False
        self.waits_for = ""


class _Carrier:
    """A thread of the system that carries one simulated thread after the other, since making one costs more than a turn."""

    _idle: ClassVar[list[_Carrier]] = []

    def __init__(self) -> None:
        self._go = threading.Lock()
        self._go.acquire()
        self._job: Callable[[], None] = lambda: None
        threading.Thread(target=self._run, name="carrier", daemon=True).start()

    @classmethod
    def start(cls, job: Callable[[], None]) -> None:
        """Runs `job` on a carrier that has nothing to do."""
        carrier = cls._idle.pop() if cls._idle else cls()
        carrier._job = job
        carrier._go.release()

    def _run(self) -> None:
        while True:
            self._go.acquire()
            self._job()
            self._idle.append(self)


class VirtualClock(clock.Clock):
    """See the module. `run` is called once, from outside; everything else from within what it runs."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        self._now = 0
        self._ready: list[_Task] = []
        self._waiting: dict[_Task, None] = {}  # a dict, since a set has no order of its own
        self._current: _Task | None = None
        self._failure: BaseException | None = None
        self._over = threading.Lock()
        self._over.acquire()
        self._ending = False

    def run(self, main: Callable[[], None]) -> None:
        """Runs `main` as a simulated thread to its end. Raises what it, or any thread that it has started, raises.

        Raises `Stuck` when nobody can go on, and when a thread is left over at the end.
        """
        first = self._add("main", main)
        self._hand_to(self._take(first))
        self._over.acquire()
        if self._failure:
            raise self._failure

    # As in `serving.clock.Clock`.

    def now_ns(self) -> int:
        return self._now

    def computed_ns(self) -> int:
        return self._now

    def wall_ms(self, at_ns: int) -> int:
        return at_ns // 1_000_000

    def wall_now_ns(self) -> int:
        return self.now_ns()

    def condition(self) -> VirtualCondition:
        return VirtualCondition(self)

    def lock(self) -> AbstractContextManager[Any]:
        return VirtualCondition(self)

    def event(self) -> VirtualEvent:
        return VirtualEvent(self)

    def start(self, work: Callable[[], None], name: str) -> VirtualThread:
        return VirtualThread(self, self._add(name, work))

    def sleep(self, seconds: float) -> None:
        """Lets so much time pass for the caller."""
        self.block("the time", self._now + int(seconds * 1e9))

    # For the primitives below.

    @property
    def current(self) -> _Task:
        """The thread that runs."""
        assert self._current
        return self._current

    def block(self, what: str, until: int | None = None) -> bool:
        """Waits to be woken, at most until then; whether it was woken."""
        me = self.current
        me.waits_for, me.until, me.woken = what, until, False
        self._waiting[me] = None
        self._next(me)
        return me.woken

    def wake(self, task: _Task) -> None:
        """Whoever is blocked may go on."""
        if task in self._waiting:
            del self._waiting[task]
            task.woken = True
            self._ready.append(task)

    def maybe_preempt(self) -> None:
        """The caller may lose its turn here."""
        if self._ready and self.random.random() < PREEMPTED:
            me = self.current
            self._ready.append(me)
            self._next(me)

    # Inside.

    def _add(self, name: str, work: Callable[[], None]) -> _Task:
        task = _Task(name, work)
        _Carrier.start(lambda: self._live(task))
        self._ready.append(task)
        return task

    def _live(self, task: _Task) -> None:
        task.turn.acquire()
        try:
            if not self._ending:
                task.work()
        except _Ended:
            pass
        except BaseException as error:  # noqa: BLE001 - told to whoever has called run
            self._failure = self._failure or error
        task.over = True
        for waiting in [each for each in self._waiting if each.waits_for == f"the end of {id(task)}"]:
            self.wake(waiting)
        if task.name == "main" or self._failure:
            self._end()
        self._next(None)

    def _end(self) -> None:
        """Everybody else is unwound; those that are left at a good end are a failure of their own."""
        if self._ending:
            return
        self._ending = True
        left = [task.name for task in [*self._ready, *self._waiting]]
        if left and not self._failure:
            self._failure = Stuck(f"left over at the end: {', '.join(left)}")
        self._ready += self._waiting
        self._waiting = {}

    def _next(self, me: _Task | None) -> None:
        """Hands over to whoever is drawn; comes back when it is the caller's turn again."""
        if not self._ready:
            self._let_time_pass()
        if not self._ready:
            if self._ending and me is None:
                self._over.release()
                return
            told = "; ".join(f"{task.name} waits for {task.waits_for}" for task in self._waiting)
            self._failure = self._failure or Stuck(f"nobody can go on: {told}")
            self._end()
        chosen = self._take(self.random.choice(self._ready))
        if chosen is not me:
            self._hand_to(chosen)
            if me is None:
                return
            me.turn.acquire()
        if self._ending:
            raise _Ended

    def _take(self, task: _Task) -> _Task:
        self._ready.remove(task)
        return task

    def _hand_to(self, task: _Task) -> None:
        self._current = task
        task.turn.release()

    def _let_time_pass(self) -> None:
        """To the next instant at which somebody goes on by itself; one of those, if there are several."""
        instants = [task.until for task in self._waiting if task.until is not None]
        if instants:
            self._now = max(self._now, min(instants))
            chosen = self.random.choice([task for task in self._waiting if task.until == min(instants)])
            del self._waiting[chosen]
            self._ready.append(chosen)


class VirtualCondition:
    """A condition with a lock of its own, which its holder may take again; a lock, too."""

    def __init__(self, virtual: VirtualClock) -> None:
        self._clock = virtual
        self._owner: _Task | None = None
        self._depth = 0
        self._for_lock: list[_Task] = []
        self._for_news: list[_Task] = []

    def __enter__(self) -> VirtualCondition:
        self._clock.maybe_preempt()
        self._acquire(1)
        return self

    def __exit__(self, *_: object) -> None:
        self._depth -= 1
        if not self._depth:
            self._release()

    def wait(self, timeout: float | None = None) -> bool:
        """As `threading.Condition.wait`."""
        me, depth = self._clock.current, self._depth
        assert self._owner is me, "only who holds the lock may wait"
        self._for_news.append(me)
        self._release()
        until = None if timeout is None else self._clock.now_ns() + max(0, int(timeout * 1e9))
        try:
            told = self._clock.block("news", until)
        finally:
            if me in self._for_news:
                self._for_news.remove(me)
        self._acquire(depth)
        return told

    def wait_for(self, predicate: Callable[[], Any], timeout: float | None = None) -> Any:
        """As `threading.Condition.wait_for`."""
        end = None if timeout is None else self._clock.now_ns() + int(timeout * 1e9)
        while not (result := predicate()):
            left = None if end is None else (end - self._clock.now_ns()) / 1e9
            if left is not None and left <= 0:
                break
            self.wait(left)
        return result

    def notify(self, n: int = 1) -> None:
        """As `threading.Condition.notify`; whom it tells is drawn."""
        assert self._owner is self._clock.current, "only who holds the lock may notify"
        for task in self._clock.random.sample(self._for_news, min(n, len(self._for_news))):
            self._for_news.remove(task)
            self._clock.wake(task)

    def notify_all(self) -> None:
        """As `threading.Condition.notify_all`."""
        self.notify(len(self._for_news))

    def _acquire(self, depth: int) -> None:
        me = self._clock.current
        while self._owner not in (None, me):
            self._for_lock.append(me)
            self._clock.block("a lock")
        self._owner = me
        self._depth += depth

    def _release(self) -> None:
        self._owner, self._depth = None, 0
        waiting, self._for_lock = self._for_lock, []
        for task in waiting:
            self._clock.wake(task)


class VirtualEvent:
    """As `threading.Event`."""

    def __init__(self, virtual: VirtualClock) -> None:
        self._changed = VirtualCondition(virtual)
        self._set = False

    def is_set(self) -> bool:
        return self._set

    def set(self) -> None:
        with self._changed:
            self._set = True
            self._changed.notify_all()

    def wait(self, timeout: float | None = None) -> bool:
        with self._changed:
            return bool(self._changed.wait_for(lambda: self._set, timeout))


class VirtualThread:
    """As `threading.Thread`, once it has been started."""

    def __init__(self, virtual: VirtualClock, task: _Task) -> None:
        self._clock = virtual
        self._task = task

    def is_alive(self) -> bool:
        return not self._task.over

    def join(self, timeout: float | None = None) -> None:
        until = None if timeout is None else self._clock.now_ns() + int(timeout * 1e9)
        while not self._task.over and (until is None or self._clock.now_ns() < until):
            self._clock.block(f"the end of {id(self._task)}", until)
