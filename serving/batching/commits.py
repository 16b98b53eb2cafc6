"""The one thread that writes sequences to the store: what has been computed is written, and only then answered.

It is off the worker's way, so the next batch is computed while the last one is written, and whatever has gathered meanwhile is
written at once. Answers leave in the order of their commits. What cannot be written was not taken: the lanes go back to what
the store holds. The thread alone touches the `Disk`, and it holds no lock while it does.
"""

from __future__ import annotations

import functools
import logging
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, Protocol, TypeVar

from serving.clock import SYSTEM, Clock
from serving.errors import NotReady, StoreFailed
from serving.sequences.changes import Change
from serving.sequences.disk import Disk, Row
from serving.sequences.records import number_of
from serving.sequences.step import Key
from serving.telemetry.counters import StoreCounts

log = logging.getLogger(__name__)

EPOCHS_AHEAD = 1_000_000  # are noted at once, so that no START waits for a write of its own
EPOCHS = "epochs"

Result = TypeVar("Result")


class Writer(Protocol):
    """Whose sequences are written: the lanes of a model. Called from the store's thread, without any lock."""

    name: str

    def committed(self, commits: Sequence[Commit]) -> None: ...

    def lost(self, commits: Sequence[Commit], error: StoreFailed) -> None: ...


class Commit(NamedTuple):
    """What is to be written together, and who is answered then: `waiting` is the writer's own."""

    writer: Writer
    changes: Mapping[Key, Change | None]
    waiting: Sequence[Any]


class Commits:
    """The store of a server. Called from any thread but for `disk`."""

    def __init__(self, disk: Disk, clock: Clock = SYSTEM) -> None:
        self.disk = disk  # for jobs, on the store's thread
        self.counts = StoreCounts()
        self._clock = clock
        self._changed = clock.condition()  # guards what follows
        self._commits: deque[Commit] = deque()
        self._soon: deque[Callable[[], None]] = deque()
        self._later: deque[Callable[[], None]] = deque()
        self._closing = False
        # The thread's own.
        self._owed: dict[tuple[str, Key], Commit] = {}  # that nobody waits for, and that could not be written
        self._epochs = int(disk.noted(EPOCHS) or 0)
        self.first_epoch = self._epochs + 1  # no epoch before it is given out again
        self._thread = clock.start(self._live, "sequence store")

    def put(self, commit: Commit) -> None:
        """To be written, in the order in which this is called."""
        with self._changed:
            self._commits.append(commit)
            self._changed.notify()

    def withdraw(self, writer: Writer) -> list[Commit]:
        """What a writer has put and nobody has begun to write; in that order."""
        with self._changed:
            withdrawn = [commit for commit in self._commits if commit.writer is writer]
            self._commits = deque(commit for commit in self._commits if commit.writer is not writer)
        return withdrawn

    def soon(self, job: Callable[[], None]) -> None:
        """Calls a job on the store's thread, before anything that waits to be written."""
        with self._changed:
            self._soon.append(job)
            self._changed.notify()

    def later(self, job: Callable[[], None]) -> None:
        """Calls a job on the store's thread, between two writes."""
        with self._changed:
            self._later.append(job)
            self._changed.notify()

    def ask(self, question: Callable[[Disk], Result]) -> Result:
        """What the store answers. Raises what the question raises, and `NotReady` when it is closed."""
        answer: list[Result] = []
        failed: list[BaseException] = []
        over = self._clock.event()

        def job() -> None:
            try:
                answer.append(question(self.disk))
            except BaseException as error:  # noqa: BLE001 - raised where it was asked
                failed.append(error)
            over.set()

        with self._changed:
            if self._closing:
                raise NotReady("Server exiting")
            self._soon.append(job)
            self._changed.notify()
        over.wait()
        if failed:
            raise failed[0]
        return answer[0]

    def close(self, timeout_seconds: float | None = None) -> None:
        """Writes what waits, and closes the store."""
        with self._changed:
            self._closing = True
            self._changed.notify_all()
        self._thread.join(timeout_seconds)

    # The thread.

    def _live(self) -> None:
        try:
            while self._go_on():
                pass
            if self._owed:
                self._write([])
        finally:
            self.disk.close()

    def _go_on(self) -> bool:
        with self._changed:
            self._changed.wait_for(lambda: self._commits or self._soon or self._later or self._closing)
            soon, self._soon = self._soon, deque()
            commits, self._commits = list(self._commits), deque()
            later = self._later.popleft() if self._later and not self._closing else None
            if not (soon or commits or later):
                return False
        for job in soon:
            self._do(job)
        if commits:
            self._write(commits)
        if later:
            self._do(later)
        return True

    def _do(self, job: Callable[[], None]) -> None:
        try:
            job()
        except Exception:
            log.exception("a job of the sequence store has failed")

    def _write(self, commits: list[Commit]) -> None:
        owed, began_ns = list(self._owed.values()), self._clock.now_ns()
        try:
            rows, newest = _rows([*owed, *commits])
            if newest > self._epochs:
                self.disk.note(EPOCHS, str(newest + EPOCHS_AHEAD))
                self._epochs = newest + EPOCHS_AHEAD
            if rows:
                self.disk.write(rows)
        except StoreFailed as error:
            self._failed(commits, error)
        except Exception as error:
            log.exception("the sequence store has failed")
            self._failed(commits, StoreFailed(f"the sequence store has failed: {type(error).__name__}: {error}"))
        else:
            self._owed.clear()
            counts = self.counts
            counts.transactions += 1
            counts.rows += len(rows)
            counts.bytes += sum([len(row.record) for row in rows if row.record])
            counts.seconds += (self._clock.now_ns() - began_ns) / 1e9
            if counts.failing:
                counts.failing = False
                log.info("the sequence store can be written again")
            for writer, of_it in _by_writer(commits).items():
                self._do(functools.partial(writer.committed, of_it))

    def _failed(self, commits: Sequence[Commit], error: StoreFailed) -> None:
        self.counts.failures += 1
        if not self.counts.failing:
            log.error("sequences cannot be written, and their steps are refused until they can: %s", error)
        self.counts.failing = True
        for writer, of_it in _by_writer(commits).items():
            self._do(functools.partial(writer.lost, of_it, error))

    def owe(self, writer: Writer, key: Key, change: Change | None) -> None:
        """To be written with whatever is written next. From the store's thread."""
        self._owed[writer.name, key] = Commit(writer, {key: change}, ())

    def forgive(self, writer: Writer, key: Key) -> bool:
        """It is not owed any more; whether it was to be deleted. From the store's thread."""
        commit = self._owed.pop((writer.name, key), None)
        return commit is not None and commit.changes[key] is None


def _rows(commits: Sequence[Commit]) -> tuple[list[Row], int]:
    """The last change of each sequence, and the highest epoch among them."""
    last: dict[Writer, dict[Key, Change | None]] = {}
    for commit in commits:
        last.setdefault(commit.writer, {}).update(commit.changes)
    rows: list[Row] = []
    newest = 0
    for writer, changes in last.items():
        model = writer.name
        rows += [Row(model, number_of(key), change.record() if change else None) for key, change in changes.items()]
        newest = max(newest, max([change.epoch for change in changes.values() if change], default=0))
    return rows, newest


def _by_writer(commits: Sequence[Commit]) -> dict[Writer, list[Commit]]:
    writers: dict[Writer, list[Commit]] = {}
    for commit in commits:
        writers.setdefault(commit.writer, []).append(commit)
    return writers
