"""Sequences with a store, in virtual time from one seed: crashes at any point, full disks, and clients that send again.

Each life of the server has lanes, a computation that adds one to a state, and the product's own store thread; what outlives it is
what the disk held when it ended. Clients number their steps and send again what was not answered, or do not number them and then
know nothing of a step without an answer. The answer to step n is n + 1, so each one tells what was lost, or counted twice.
"""

from __future__ import annotations

import random

import pytest

from serving.batching.commits import Commit, Commits
from serving.batching.lanes import Lanes
from serving.sequences.epochs import Epochs
from serving.sequences.policy import SequencePolicy
from serving.sequences.step import Key
from tests.simulation.virtual import VirtualClock
from tests.support.fake_disk import FakeDisk
from tests.support.sequence_desk import Asks, Desk

MS = 0.001
POLICY = SequencePolicy(window=3, max_sequences=100, idle_ns=0)
STEPS = 6  # of each sequence
LIVES = 4
TRIES = 400


class Server:
    """One life. After `die` nobody hears of it, and the disk is not written any more."""

    def __init__(self, clock: VirtualClock, disk: FakeDisk, draw: random.Random, commits: type[Commits]) -> None:
        self.clock = clock
        self.disk = disk
        self.draw = draw
        self.dead = False
        disk.before_write = disk.after_write = self._slowly
        self.commits = commits(disk, clock)
        self.lanes = Lanes("m", Epochs(max(100, self.commits.first_epoch)), clock, self.commits)
        self.desk = Desk(clock, self.lanes, POLICY)
        clock.start(self._compute, "worker")
        self.lanes.recover()

    def _slowly(self) -> None:
        self.clock.sleep(self.draw.choice((0, 0, MS / 4, MS)))

    def _compute(self) -> None:
        while not self.dead:
            self.clock.sleep(self.draw.choice((MS / 8, MS / 2)))
            if self.desk.queued:
                self.desk.compute()

    def die(self) -> FakeDisk:
        """What the next life finds."""
        left = self.disk.copy()
        self.dead = True
        return left

    def bury(self) -> None:
        """Ends its threads, for the simulation's sake."""
        self.lanes.drain(self.desk.home, 0)
        self.commits.close()


class World:
    """A few lives, and the clients that live through all of them."""

    def __init__(self, seed: int, commits: type[Commits] = Commits) -> None:
        self.clock = VirtualClock(seed)
        self.draw = random.Random(seed)
        self.commits = commits
        self.broken: list[str] = []
        self.seen: set[str] = set()
        self.history: list[str] = []

    def run(self) -> None:
        """Raises `AssertionError` where a promise was broken."""
        self.clock.run(self._main)
        assert not self.broken, self.broken

    def _main(self) -> None:
        self.server = self._born(FakeDisk())
        lives = [self.server]
        clients = [
            self.clock.start(lambda key=("", n), numbered=n % 3 != 2: self._client(key, numbered), f"client {n}")  # type: ignore[misc]
            for n in range(1, self.draw.choice((2, 4)) + 1)
        ]
        for _ in range(LIVES - 1):
            self.clock.sleep(self.draw.uniform(0, 6) * MS)
            if self.draw.random() < 0.6:
                self.server.disk.full = True
                self.history.append("full")
                self.clock.sleep(self.draw.uniform(0, 4) * MS)
                self.server.disk.full = False
                self.history.append("room again")
            self.clock.sleep(self.draw.uniform(0, 4) * MS)
            left = self.server.die()
            self.history.append(f"crash, {len(left.rows)} rows are left")
            self.server = self._born(left)
            lives.append(self.server)
        for client in clients:
            client.join()
        for life in lives:
            life.dead = True
            life.disk.full = False
        self.clock.sleep(1)
        for life in lives:
            while life.desk.queued:
                life.desk.compute()
                self.clock.sleep(MS)
            life.bury()
        self.clock.sleep(3600)  # for who looks for idle ones

    def _born(self, disk: FakeDisk) -> Server:
        return Server(self.clock, disk, self.draw, self.commits)

    def _ask(self, key: Key, **said: object) -> tuple[object, Asks]:
        """What one server answers, or "Gone" when it has died before."""
        server = self.server
        asked = server.desk.ask(key, **said)  # type: ignore[arg-type]
        while asked.told is None and not server.dead:
            self.clock.sleep(MS / 8)
        told = asked.told if not server.dead else "Gone"
        if asked.told is not None and server.dead and self.draw.random() < 0.5:
            told = "Gone"  # its answer was lost on the way
        self.history.append(f"{key} {said}: {told} {asked.told_of}")
        self.seen.add(str(told) if isinstance(told, str) else "answered")
        return told, asked

    def _client(self, key: Key, numbered: bool) -> None:
        try:
            self._numbered(key) if numbered else self._plain(key)
        except AssertionError as error:
            self.broken.append(f"{key}: {error}; {self.history[-40:]}")

    def _numbered(self, key: Key) -> None:
        """Sends each step until it is answered; now and then an older one again."""
        number, epoch, tries = 0, 0, 0
        while number < STEPS:
            tries += 1
            assert tries < TRIES, "it does not come to an end"
            said = {
                "number": number,
                "start": number == 0,
                "end": number == STEPS - 1,
                "nonce": b"n" if number == 0 else b"",
            }
            told, asked = self._ask(key, **said, **({"epoch_said": epoch} if epoch else {}))
            if isinstance(told, float):
                assert told == number + 1, f"step {number} was answered {told}"
                assert epoch in (0, asked.epoch), f"the epoch was {epoch} and is {asked.epoch}"
                number, epoch = number + 1, asked.epoch
                if number > 1 and self.draw.random() < 0.2:
                    self._again(key, number - 1, epoch)
            else:
                assert told in ("Gone", "StoreFailed", "BrokenOff", "NotReady", "Overloaded"), f"step {number}: {told}"
                self.clock.sleep(MS / 2)

    def _again(self, key: Key, number: int, epoch: int) -> None:
        said = {"number": number, "start": False, "end": number == STEPS - 1}
        told, _ = self._ask(key, **said, epoch_said=epoch)
        assert told in (number + 1.0, "Gone", "StoreFailed", "NotReady"), f"step {number} again: {told}"
        self.seen.add("again")

    def _plain(self, key: Key) -> None:
        """Goes on where the answers say it is, and may find a step taken whose answer it never had."""
        sent, answered = 0, 0
        for _ in range(TRIES):
            told, _ = self._ask(key, start=answered == 0)
            sent = 1 if answered == 0 else sent + 1
            if isinstance(told, float):
                assert answered < told <= sent, f"after {answered} of {sent} sent it was answered {told}"
                answered = int(told)
                if answered >= STEPS:
                    break
            elif told == "InvalidRequest":
                assert answered == 0, f"{answered} steps were answered, and it is gone"
            self.clock.sleep(MS / 2)


def test_no_acknowledged_step_is_lost_and_none_is_counted_twice(seeds: range, replayed: bool) -> None:
    seen: set[str] = set()
    for seed in seeds:
        world = World(seed)
        try:
            world.run()
        except AssertionError as error:
            if replayed:
                print(*world.history, sep="\n")
            raise AssertionError(f"seed {seed}: {error}") from None
        seen |= world.seen
    assert replayed or len(seeds) < 200 or seen >= {"answered", "Gone", "StoreFailed", "BrokenOff", "again"}


class Forgetful(Commits):
    """Writes all but one of what is to be written together."""

    def put(self, commit: Commit) -> None:
        super().put(commit._replace(changes=dict(list(commit.changes.items())[1:])))


class Hasty(Commits):
    """Answers, and writes then."""

    def put(self, commit: Commit) -> None:
        super().put(commit._replace(waiting=()))
        commit.writer.committed([commit])


@pytest.mark.parametrize("commits", [Forgetful, Hasty])
def test_a_planted_fault_is_found(commits: type[Commits]) -> None:
    """A simulation that finds nothing must be one that could."""

    def finds(seed: int) -> bool:
        try:
            World(seed, commits).run()
        except AssertionError:
            return True
        return False

    assert any(finds(seed) for seed in range(300))
