"""What an operator does with the sequences of a model: lists them, looks at one, takes it along, puts it back, ends it.

Whatever changes one, or copies it, is done while it is kept still: no step of it is on its way, and what it is has been
written where it is written at all. So a copy is never one of a state whose step may yet be lost. What an operator has changed
is written before it is told as done; what cannot be written has not been done.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

from serving.batching.commits import Commit
from serving.batching.lanes import Inside, Lanes
from serving.clock import SYSTEM, Clock
from serving.errors import InvalidRequest, NotReady, OutOfStep, Overloaded, StoreFailed
from serving.sequences import counts as why
from serving.sequences import records
from serving.sequences.changes import Change
from serving.sequences.live import ENDED, Look, Sequences
from serving.sequences.records import Record
from serving.sequences.step import Key

log = logging.getLogger(__name__)

STILL_SECONDS = 5.0  # for which an operator waits for a sequence that has a step on its way
WRITE_SECONDS = 60.0  # for the store
MOST_EPOCH = 2**62  # no server counts so far


class OfVersion(NamedTuple):
    """The sequences of one version: how many live, of them numbered and busy, tombs, bytes, and how long they have been idle."""

    version: str
    live: int
    numbered: int
    busy: int
    tombs: int
    state_bytes: int
    longest_idle_ns: int
    shortest_idle_ns: int


class Listing(NamedTuple):
    """The sequences of a model by version, and some of them one by one; `reads` while more are to come from the store."""

    versions: Sequence[OfVersion]
    some: Sequence[tuple[Look, bool]]  # and whether it is busy
    reads: bool


class Copied(NamedTuple):
    """A sequence, and as bytes."""

    seen: Look
    record: bytes


class _Before(NamedTuple):
    """What lived where another one is put."""

    home: Sequences
    record: Record
    broken_off: bool

    def comes_back(self, now_ns: int) -> None:
        """It lives on, since the other one could not be put there."""
        self.home.place(self.record, now_ns, doubtful=self.broken_off)


class SequenceAdmin:
    """The operator's hand on the sequences of one model. Called from any thread.

    `exceed` is told the epoch of each that comes from elsewhere, so that the server's own are higher from then on.
    """

    def __init__(self, lanes: Lanes, exceed: Callable[[int], None], clock: Clock = SYSTEM) -> None:
        self._lanes = lanes
        self._exceed = exceed
        self._clock = clock

    def listing(self, most: int, *, youngest: bool = False) -> Listing:
        """All versions, and so many sequences of each: those that have been idle longest, or shortest."""

        def look(inside: Inside) -> Listing:
            tombs = Counter(tomb.gone.version for tomb in inside.memory.tombs())
            busy = set(inside.busy)
            versions, some = [], []
            for home in inside.homes:
                keys = home.longest_idle(most, youngest=youngest) if most else []
                some += [(seen, key in busy) for key in keys if (seen := home.look(key, inside.now_ns))]
                versions.append(_of_version(home, inside, busy, tombs.pop(home.version, 0)))
            return Listing(versions, some, inside.reads)

        return self._lanes.look(look)

    def show(self, id: int | str, caller: str | None) -> tuple[Look, bool]:
        """One sequence, and whether it is busy. Raises `InvalidRequest` where there is none, or more than one."""

        def look(inside: Inside) -> tuple[Look, bool]:
            key, home = self._one(inside, id, caller)
            seen = home.look(key, inside.now_ns)
            assert seen is not None
            return seen, key in inside.busy

        return self._lanes.look(look)

    def export(self, id: int | str, caller: str | None) -> Copied:
        """One as it is between two steps. Raises as `show`, and `NotReady` where it is busy for too long."""
        key = self._key(id, caller)
        with self._lanes.still(key, STILL_SECONDS):
            copied = self._lanes.look(lambda inside: self._copied(inside, key))
        self._log("a sequence was exported by the operator", copied.seen)
        return copied

    def end(self, id: int | str, caller: str | None, *, epoch: int = 0, taken: int = 0) -> Look:
        """Ends one; only if it has taken just so many steps of that epoch, where one is given.

        Raises as `export`, `OutOfStep` where it has gone on, and `StoreFailed` where its end cannot be written.
        """
        key = self._key(id, caller)
        with self._lanes.still(key, STILL_SECONDS):
            seen = self._lanes.look(lambda inside: self._copied(inside, key)).seen
            if epoch and (epoch, taken) != (seen.epoch, seen.taken):
                raise OutOfStep(
                    f"sequence {id!r} is not ended: it has taken {seen.taken} steps in epoch {seen.epoch}, and was to end "
                    f"after {taken} in epoch {epoch}; export it again"
                )
            self._write({key: None})
            self._lanes.look(lambda inside: self._one(inside, id, key[0])[1].end(key, why.BY_HAND, inside.now_ns))
            return seen

    def put(self, record: Record, *, replace: bool = False, any_weights: bool = False) -> Look:
        """A sequence lives here as its record says, as if its last step were now.

        Raises `InvalidRequest` where its state means nothing to a version that is here, or it lives already; `Overloaded` where
        there is no room; `NotReady` as `export`, and `StoreFailed` where it cannot be written.
        """
        key = record.key
        if record.ended:
            raise InvalidRequest(f"sequence {key[1]!r} had ended when it was written: there is nothing to go on with")
        if not 0 < record.epoch < MOST_EPOCH or record.taken >= MOST_EPOCH:
            raise InvalidRequest(f"its epoch {record.epoch} or its {record.taken} steps are more than a server counts")
        self._check_read()
        with self._lanes.still(key, STILL_SECONDS):
            self._exceed(record.epoch)
            before, home = self._lanes.look(lambda inside: self._place(inside, record, replace, any_weights))
            try:
                self._write({key: self._lanes.look(lambda inside: _change(home, key, inside))})
            except Exception:
                self._lanes.look(lambda inside: _back(home, key, before, inside))
                raise
            if before:
                before.home.counts.ended[why.BY_HAND] += 1
            seen = self._lanes.look(lambda inside: home.look(key, inside.now_ns))
            assert seen is not None
            self._log("a sequence was put back by the operator", seen)
            return seen

    # Inside.

    def _log(self, message: str, seen: Look) -> None:
        caller, id = seen.key
        fields = {"model": self._lanes.name, "version": seen.version, "sequence": id, "epoch": seen.epoch}
        fields |= {"steps": seen.taken} | ({"caller": caller} if caller else {})
        log.info(message, extra={"fields": fields})

    def _key(self, id: int | str, caller: str | None) -> Key:
        return self._lanes.look(lambda inside: self._one(inside, id, caller)[0])

    def _check_read(self) -> None:
        if self._lanes.reads:
            raise NotReady(
                f"the sequences of model '{self._lanes.name}' are still being read from the store, which is a matter of "
                "seconds: try again"
            )

    def _one(self, inside: Inside, id: int | str, caller: str | None) -> tuple[Key, Sequences]:
        found = [((each, id), home) for home in inside.homes for each in home.callers_of(id) if caller in (None, each)]
        if len(found) == 1:
            return found[0]
        if found:
            callers = ", ".join(sorted(repr(key[0]) for key, _ in found))
            raise InvalidRequest(f"sequence {id!r} is one of several callers: name one with --caller: {callers}")
        self._check_read()
        gone = inside.memory.find((caller or "", id))
        because = f": {ENDED[gone.reason]}" if gone and gone.reason in ENDED else ""
        of = f" of caller {caller!r}" if caller is not None else ""
        raise InvalidRequest(f"model '{self._lanes.name}' has no sequence {id!r}{of}{because}")

    def _copied(self, inside: Inside, key: Key) -> Copied:
        _, home = self._one(inside, key[1], key[0])
        seen, record = home.look(key, inside.now_ns), home.record_of(key, inside.now_ns, inside.wall_ns)
        assert seen is not None
        assert record is not None
        return Copied(seen, bytes(record))

    def _place(
        self, inside: Inside, record: Record, replace: bool, any_weights: bool
    ) -> tuple[_Before | None, Sequences]:
        """Puts it where it goes on; what was there before, and where it is."""
        key = record.key
        if not inside.starting:
            raise NotReady("Server exiting: no sequence is put back any more; put it into another one")
        home = self._home_for(inside, record, any_weights)
        old = next((each for each in inside.homes if each.knows(key)), None)
        before = None
        if old is not None:
            if not replace:
                seen = old.look(key, inside.now_ns)
                taken = seen.taken if seen else 0
                raise InvalidRequest(
                    f"sequence {key[1]!r} lives here already, after {taken} steps: --replace ends it and puts this one, "
                    f"after {record.taken}, in its place"
                )
            copied = self._copied(inside, key)
            before = _Before(old, records.unpack(copied.record), copied.seen.broken_off)
            old.discard(key)
        # Without numbers nobody sees whether steps were taken since it was written: then its next step is refused, once.
        if not home.place(record, inside.now_ns, doubtful=True):
            if before:
                before.comes_back(inside.now_ns)
            raise Overloaded(
                f"there is no room for it: {home.live} sequences of {home.title} live, which are all that max_sequences "
                f"({home.policy.max_sequences}) and max_sequence_state_bytes ({home.policy.max_state_bytes}) allow"
            )
        return before, home

    def _home_for(self, inside: Inside, record: Record, any_weights: bool) -> Sequences:
        homes = [home for home in inside.homes if not home.leaves and not home.closed]
        homes.sort(key=lambda home: (home.version == record.origin.version, int(home.version)), reverse=True)
        if not homes:
            raise NotReady(f"model '{self._lanes.name}' has no version that takes sequences now")
        fitting = [home for home in homes if home.has_shapes_of(record)]
        if not fitting:
            raise InvalidRequest(
                f"its state is {_shapes(record.origin.shapes)}, and that of {homes[0].title} is "
                f"{_shapes(homes[0].layout.shapes)}: it means nothing to it"
            )
        alike = [home for home in fitting if home.has_weights_of(record)]
        if not alike and not any_weights:
            theirs, ours = record.origin.weights_sha256, fitting[0].layout.weights_sha256
            raise InvalidRequest(
                f"it was computed with the weights {_weights(theirs)} (version {record.origin.version}), and "
                f"{fitting[0].title} has {_weights(ours)}: its state means something else to others; where you know better, "
                "--any-weights takes it"
            )
        return (alike or fitting)[0]

    def _write(self, changes: Mapping[Key, Change | None]) -> None:
        """Waits until the store has them, if there is one."""
        commits = self._lanes.look(lambda inside: inside.commits)
        if commits is None:
            return
        waits = _Waits(self._lanes.name, self._clock)
        commits.put(Commit(waits, changes, ()))
        if not waits.over.wait(WRITE_SECONDS):
            raise StoreFailed(f"the store has not written it within {WRITE_SECONDS:g} s; look at the sequence")
        if waits.error:
            raise StoreFailed(f"nothing has changed: {waits.error}")

        def forget(inside: Inside) -> None:
            for key in changes:
                inside.others.pop(key, None)

        self._lanes.look(forget)


class _Waits:
    """Who has put something to be written, and waits for it; see `commits.Writer`."""

    def __init__(self, name: str, clock: Clock) -> None:
        self.name = name
        self.over = clock.event()
        self.error: StoreFailed | None = None

    def committed(self, _commits: Sequence[Commit]) -> None:
        self.over.set()

    def lost(self, _commits: Sequence[Commit], error: StoreFailed) -> None:
        self.error = error
        self.over.set()


def _of_version(home: Sequences, inside: Inside, busy: set[Key], tombs: int) -> OfVersion:
    ends = [home.longest_idle(1), home.longest_idle(1, youngest=True)]
    seen = [home.look(key, inside.now_ns) for keys in ends for key in keys]
    longest, shortest = [each.idle_ns for each in seen if each] or (0, 0)
    working = sum(home.knows(key) for key in busy)
    return OfVersion(home.version, home.live, home.numbered, working, tombs, home.state_bytes, longest, shortest)


def _change(home: Sequences, key: Key, inside: Inside) -> Change | None:
    return home.change_of(key, inside.now_ns, inside.wall_ns)


def _back(home: Sequences, key: Key, before: _Before | None, inside: Inside) -> None:
    """All is as it was."""
    home.discard(key)
    if before:
        before.comes_back(inside.now_ns)


def _shapes(shapes: Mapping[str, tuple[str, str, tuple[int, ...]]]) -> str:
    return ", ".join(f"{name} {dtype}{list(shape)}" for name, (_, dtype, shape) in sorted(shapes.items())) or "nothing"


def _weights(digest: str) -> str:
    return f"{digest[:16]}..." if digest else "of which nobody knows a digest"
