"""Sequences of a stateful model, and everything that may happen to them at once, in virtual time from one seed.

Clients begin sequences, go on with them and end them, several of them on one id, over as many connections as they like: some
number their steps and send again what has failed or what they lost, some do not, and some send what is wrong. Meanwhile backends
break, versions come and go with the same weights or others, clients leave, and the house is full. What serves is the product's
own code: manager, failover, keeping, lanes, sequences, queue, workers, the computation; only its clock, and what loads a model,
are handed in.

A state is the sum of what was sent since the START, on top of what that began with; and every answer is that sum. So each answer
tells which steps the sequence has taken, and `Book` holds what must be so.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import random
import re
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

from protos import model_config_pb2 as pb
from serving.backends import fake
from serving.backends.base import Backend
from serving.backends.fake import FakeBackend, Lost
from serving.batching.aside import Aside
from serving.batching.guard import Guard
from serving.batching.in_lane import Entering
from serving.batching.lanes import Lanes
from serving.batching.model import Instance, Lease, Model
from serving.batching.pending import Pending
from serving.batching.policy import BatchPolicy, QueuePolicy
from serving.batching.stateful import Stateful
from serving.errors import (
    BrokenOff,
    Cancelled,
    ComputeFailed,
    DeadlineExceeded,
    InvalidRequest,
    NotReady,
    OutOfStep,
    Overloaded,
    RepositoryError,
    ServingError,
    TimedOut,
    UnknownVersion,
)
from serving.lifecycle.failovers import Failovers
from serving.lifecycle.manager import ModelManager
from serving.loading.order import Order, ServerDefaults
from serving.loading.request import Loaded, LoadRequest
from serving.repository import model_config
from serving.repository.folders import Repository, VersionFolder
from serving.sequences import counts as why
from serving.sequences.epochs import Epochs
from serving.sequences.live import Sequences
from serving.sequences.policy import (
    CARRY_SAME_SHAPES,
    CARRY_SAME_WEIGHTS,
    DRAIN,
    RESTART,
    SequencePolicy,
    StateLayout,
    StateTensor,
)
from serving.sequences.step import Key, Step
from serving.signature.tensors import Tensors
from serving.telemetry.counters import ModelMetrics
from serving.telemetry.timeline import Timeline
from tests.simulation.queues import drawn_turn
from tests.simulation.virtual import VirtualClock, VirtualCondition
from tests.simulation.world import FIRST, MS, PATIENCE_SECONDS, PLACE, SECOND
from tests.support import fake_models

POISON = 13.0
MANY = 100  # sequences, for which there is always room
INITIAL = 7000.0  # what a fresh state holds, so that nothing can be computed from zeros unseen
SPEC = fake_models.spec()
SHAPE = fake_models.STATE[1:]
TENSORS = tuple(
    StateTensor(pair.input, pair.output, np.dtype(np.float32), SHAPE, np.full(SHAPE, INITIAL, np.float32))
    for pair in SPEC.state
)
LONG_NS = 1000 * MS  # longer than any world's clients live
TRIES = 30  # after which a client gives a sequence up


@dataclasses.dataclass(frozen=True, kw_only=True)
class Said:
    """One message as a client means it: sent again it is the same."""

    key: Key
    value: float  # in each of its elements
    steps: int = 1
    start: bool = False
    end: bool = False
    number: int | None = None
    nonce: bytes = b""
    epoch: int = 0
    brings: float | None = None  # a state to begin with
    malformed: bool = False  # wrong as a request

    @property
    def alone(self) -> bool:
        """Whether it belongs to no sequence, and brings its state itself."""
        return self.key[1] == 0

    @property
    def adds(self) -> float:
        """What the state becomes more by, in weights of 1."""
        return self.value * self.steps * fake_models.FEATURES


def _mended(said: Said) -> Said:
    wrong = said.value == POISON or said.malformed
    return dataclasses.replace(said, value=20.0, malformed=False) if wrong else said


class Weighted:
    """A backend that may be told to break for good, and whose weights multiply what comes in."""

    def __init__(self, backend: Backend, weights: float, world: SequenceWorld) -> None:
        self._backend = backend
        self._weights = weights
        self.broken = False
        self.closed = False
        world.backends.append(self)

    def run(self, inputs: Tensors, outputs: Sequence[str]) -> Tensors:
        assert not self.closed, "a closed backend was asked"
        if self.broken:
            raise Lost("device_lost")
        return self._backend.run({**inputs, "x": inputs["x"] * self._weights}, outputs)

    def close(self) -> None:
        assert not self.closed, "closed twice"
        self.closed = True
        self._backend.close()


class Request:
    """One message on its way: what came of it; a `batching.lanes.Asking`."""

    def __init__(self, world: SequenceWorld, said: Said, draw: random.Random) -> None:
        self.world = world
        self.said = said
        self.number = len(world.requests)
        world.requests.append(self)
        self.decoding_ns = draw.choice((0, 0, 0, MS // 4, MS))
        self.cancelled_after_ns = int(draw.uniform(0, 4) * MS) if draw.random() < 0.08 else None
        self.deadline_after_ns = int(draw.uniform(0, 8) * MS) if draw.random() < 0.08 else None
        self.turn, self.size = drawn_turn(draw), draw.choice((0, 10, 60))
        self.version = draw.choice(("", "", "", "1", "2", "x")) if world.names_versions else ""
        self.known_then = False  # whether a START of the id had been answered when it was sent, and no END asked for
        self.lease: Lease | None = None
        self.step: Step | None = None
        self.pending: Pending | None = None
        self.outputs: Tensors | None = None
        self.epoch = 0
        self.ended: list[str] = []
        self.error: ServingError | None = None
        self.came_ns = self.ended_ns = 0
        self.took = 0  # when it was computed and answered, in the order of what has happened
        self.over = world.clock.event()

    @property
    def answered(self) -> bool:
        """Whether it has its answer."""
        return self.ended == ["answered"]

    @property
    def y(self) -> float:
        """What was answered."""
        assert self.outputs is not None
        return float(self.outputs["y"][0, 0])

    def send(self) -> None:
        """Comes alone."""
        send_together([self])

    def ready(self) -> Entering | None:
        """Finds the model and is decoded, as `protocol.inference` does; what then enters its lane, unless it was refused."""
        world, clock, said = self.world, self.world.clock, self.said
        self.sent_ns = clock.now_ns()
        self.known_then = world.book.lives(said.key)
        world.happened(f"sent {said}", self)
        step = self.step = Step(
            said.key, start=said.start, end=said.end, number=said.number, nonce=said.nonce, epoch_said=said.epoch
        )
        lanes = world.manager.lanes("m")
        assert lanes is not None
        try:
            self.lease = world.manager.acquire_step("m", self.version, None if said.alone else step)
        except ServingError as error:
            self._breaks_off(lanes)
            self.finish(error)
            return None
        model = self.lease.model
        model.metrics.entered()
        clock.sleep(self.decoding_ns / 1e9)
        if said.malformed:
            self._breaks_off(lanes)
            self.finish(InvalidRequest("malformed"))
            return None
        inputs = {"x": np.full((1, said.steps, fake_models.FEATURES), said.value, np.float32)}
        if said.brings is not None:
            inputs |= {t.input: np.full((1, *t.shape), said.brings, np.float32) for t in TENSORS}
        if said.number is not None:
            step.digest = repr(dataclasses.replace(said, epoch=0, nonce=b"")).encode()
        timeline = Timeline(self.sent_ns)
        timeline.decoded = clock.now_ns()
        deadline_ns = None if self.deadline_after_ns is None else self.sent_ns + self.deadline_after_ns
        self.pending = Pending(
            self, inputs, 1, said.steps, ["y"], SPEC.batch_key(inputs), timeline, deadline_ns, self.turn, self.size
        )
        if self.cancelled_after_ns is not None:
            clock.start(self._go, f"leaving {self.number}")
        if said.alone:
            try:
                model.submit(self.pending)
            except ServingError as error:
                self.finish(error)
            return None
        return Entering(self.pending, step, model)

    def _breaks_off(self, lanes: Lanes) -> None:
        if self.said.alone:
            return
        assert self.step
        with self.world.doors[self.said.key] if self.world.orderly else contextlib.nullcontext():
            self.has_come()
            lanes.broken_off(self.step.key)

    def has_come(self) -> None:
        """It is the last of its sequence to have come, for who keeps that."""
        self.world.arrivals[self.said.key].append(self)
        self.came_ns = self.world.clock.now_ns()

    def _go(self) -> None:
        assert self.pending
        self.world.clock.sleep((self.cancelled_after_ns or 0) / 1e9)
        self.pending.cancel()

    def in_epoch(self, epoch: int) -> None:
        self.epoch = epoch

    def encode(self, outputs: Tensors) -> None:
        if self.world.cannot_be_sent and self.number % 17 == 5:
            raise ValueError("it cannot be sent")
        self.outputs = {name: np.array(array) for name, array in outputs.items()}
        assert self.pending
        self.pending.timeline.encoded = self.world.clock.now_ns()

    def move(self, lease: Lease) -> None:
        assert self.lease
        self.lease.model.metrics.left()
        lease.model.metrics.entered()
        held, self.lease = self.lease, lease
        held.release()

    @staticmethod
    def finish_all(requesters: Sequence[Request]) -> None:
        for request in requesters:
            request._has_ended(None)
        Lease.release_all([request.lease for request in requesters if request.lease])
        for request in requesters:
            request.over.set()

    def finish(self, error: ServingError) -> None:
        self._has_ended(error)
        if self.lease:
            self.lease.model.metrics.refused("failed", 0)
            self.lease.release()
        self.over.set()

    def _has_ended(self, error: ServingError | None) -> None:
        outcome = "answered" if error is None else type(error).__name__
        self.error, self.ended_ns = error, self.world.clock.now_ns()
        self.ended.append(outcome)
        told = f"{outcome} {self.y} in epoch {self.epoch}" if error is None else f"{outcome}: {error}"
        self.world.happened(told, self)
        try:
            assert len(self.ended) == 1, f"it has ended {self.ended}"
            if error is None:
                self.world.book.answered(self)
            else:
                self.world.book.refused(self, error)
        except AssertionError as broken:  # raised here, it would look like a fault of whoever has answered
            self.world.broken_promises.append(f"request {self.number} ({self.said}): {broken}")


def send_together(requests: Sequence[Request]) -> None:
    """They are decoded one after the other, and enter their lanes at once; each is of another sequence."""
    world = requests[0].world
    lanes = world.manager.lanes("m")
    assert lanes is not None
    entering = [(request, entering) for request in requests if (entering := request.ready())]
    with contextlib.ExitStack() as doors:
        if world.orderly:
            for key in sorted([request.said.key for request, _ in entering], key=repr):
                doors.enter_context(world.doors[key])
            for request, _ in entering:
                request.has_come()
        lanes.enter_all([each for _, each in entering])


class Life:
    """A sequence as its answers tell: one epoch of one id."""

    def __init__(self, epoch: int) -> None:
        self.epoch = epoch
        self.state = 0.0
        self.taken: list[tuple[Said, Tensors]] = []
        self.ended = False
        self.last_ns = 0


class Book:
    """What must hold, worked out from what clients have sent and heard alone.

    Every answer of a sequence is its last one plus what the step has brought, so exactly the answered steps were taken, in the
    order of their answers, each once; a repeat is answered alike; epochs never fall; nothing begins but with a START. What is
    refused is refused for a reason that was there, and nothing goes on over a step that was refused.
    """

    def __init__(self, world: SequenceWorld) -> None:
        self.world = world
        self.lives: Callable[[Key], bool] = lambda key: bool(self._lives[key]) and not self._lives[key][-1].ended
        self._lives: dict[Key, list[Life]] = defaultdict(list)

    def answered(self, request: Request) -> None:
        """An answer leaves; those of one sequence leave one after the other."""
        said, lives = request.said, self._lives[request.said.key]
        assert not said.malformed
        assert said.value != POISON, "who can compute this?"
        assert request.lease
        adds = said.adds * self.world.weights_of(request.lease.model)
        if said.alone:
            assert said.brings is not None
            assert (request.y, request.epoch) == (said.brings + adds, 0), f"answered {request.y} to one that is alone"
            return
        life = next((each for each in lives if each.epoch == request.epoch), None)
        if life and said.number is not None and said.number < len(life.taken):
            first, outputs = life.taken[said.number]
            assert (first.value, first.steps, first.end) == (said.value, said.steps, said.end), "another content"
            assert request.outputs is not None
            assert all((outputs[name] == array).all() for name, array in request.outputs.items()), "a repeat differs"
            self.world.happened("repeat", request)
            return
        if said.start:
            assert life is None, "one epoch for two sequences"
            again = lives and not lives[-1].ended and said.nonce and lives[-1].taken[0][0].nonce == said.nonce
            policy = self.world.policy
            assert not again or self.world.went or 0 < policy.idle_ns < LONG_NS or policy.evicts, "begun twice"
            assert not lives or request.epoch > lives[-1].epoch, "epochs fall"
            life = Life(request.epoch)
            lives.append(life)
            life.state = INITIAL if said.brings is None else said.brings
        request.took = len(self.world.history)
        assert life is not None, "answered, but no START was"
        assert life is lives[-1], f"an older epoch than {lives[-1].epoch} goes on"
        assert not life.ended, "it goes on behind its end"
        assert said.epoch in (0, life.epoch), "another epoch was meant"
        assert (said.number is not None) == (life.taken[0][0].number is not None if life.taken else said.number == 0)
        if said.number is not None:
            assert said.number == len(life.taken), f"it has taken {len(life.taken)}"
        life.state += adds
        assert request.y == life.state, f"answered {request.y}, and not {life.state}"
        assert request.outputs is not None
        life.taken.append((said, request.outputs))
        life.ended, life.last_ns = said.end, self.world.clock.now_ns()

    def refused(self, request: Request, error: ServingError) -> None:
        """An error leaves."""
        said, now, world = request.said, self.world.clock.now_ns(), self.world
        lives = self._lives[said.key]
        if isinstance(error, Cancelled | DeadlineExceeded):
            assert request.pending
            assert request.pending.cancelled or request.pending.deadline_ns is not None
        elif isinstance(error, ComputeFailed):
            assert said.value == POISON or world.nobody_stands_in or "cannot be sent" in str(error), error
        elif isinstance(error, TimedOut):
            assert world.batching.queue.timeout_ns or request.turn.timeout_ns or world.policy.start_timeout_ns
        elif isinstance(error, Overloaded):
            _check_overload(said, str(error))
        elif isinstance(error, BrokenOff):
            others = [each for each in world.requests if each.said.key == said.key and each is not request]
            assert any(not each.answered for each in others), "nothing was refused before it"
            assert "refused once" not in str(error) or said.number is None
        elif isinstance(error, OutOfStep):
            assert lives, "out of step with nothing"
            _check_place(said, str(error), lives)
        elif isinstance(error, NotReady):
            elsewhere = world.two_versions and "has just gone over" in str(error)
            loading = request.version and "is not at ready state" in str(error)
            assert world.went or elsewhere or loading, f"nothing has gone, but: {error}"
        elif isinstance(error, UnknownVersion):
            assert request.version or world.went
        elif "must specify the START flag" in str(error):
            self._no_start(request, str(error), now)
        else:
            assert isinstance(error, InvalidRequest), error
            assert said.malformed or lives or request.version, error

    def check_order(self, arrivals: Sequence[Request]) -> None:
        """Messages of one id were taken in the order in which they came, and none without a number behind one that was not."""
        took = [each.took for each in arrivals if each.took]
        assert took == sorted(took), "they were taken in another order than they came in"
        hole, hole_ns = False, 0
        for each in arrivals:
            told = str(each.error or "")
            if each.said.start:
                hole, hole_ns = hole and not each.took, 0
            if each.took:
                over = each.said.number is None and not each.said.start and (hole or each.came_ns < hole_ns)
                assert not over, f"{each.number} goes on over a hole"
            elif "was started without sequence_step" in told or (
                each.said.number is None and "sequence_epoch" not in told and "refused once" not in told
            ):
                hole, hole_ns = True, max(hole_ns, each.ended_ns)
            elif "refused once" in told:
                hole = False

    def _no_start(self, request: Request, told: str, now: int) -> None:
        """A sequence is said not to live."""
        assert not request.said.start
        if not request.known_then:
            return
        policy, last_ns = self.world.policy, self._lives[request.said.key][-1].last_ns
        if "idle for longer" in told:
            assert 0 < policy.idle_ns <= now - last_ns, "it was not idle for so long"
        elif "evicted" in told:
            assert policy.evicts
        elif "version of the model has gone" in told:
            assert self.world.went
            kept = policy.on_removal == CARRY_SAME_SHAPES and policy.max_sequences == MANY and not self.world.cramped
            assert not kept, "it was to be carried over, and there was room"
        elif "started anew elsewhere" in told:
            assert self.world.went or self.world.two_versions
        else:
            assert "it has ended" in told, f"it lives, or the reason was forgotten: {told}"
            assert any(each.said.end for each in self.world.requests if each.said.key == request.said.key)


def _check_overload(said: Said, told: str) -> None:
    """Whether there was no room for it, as it is told."""
    if "no new sequence" in told:
        assert said.start, "only a START needs room"
        live = re.search(r"([0-9]+) live, .* max_sequences \(([0-9]+)\)", told)
        assert live, told
        assert int(live[1]) <= int(live[2])
    elif "sequence_window" in told:
        assert said.number is not None
    else:
        assert "maximum queue size" in told


def _check_place(said: Said, told: str, lives: Sequence[Life]) -> None:
    """Whether it was not the step that came next, as it is told."""
    if expected := re.search("expects step ([0-9]+)", told):
        assert said.number != int(expected[1]), "it is the one that is expected"
        assert any(int(expected[1]) <= len(life.taken) for life in lives), "so many were not taken"
    else:
        assert said.epoch, told


class SequenceWorld:
    """The model, its clients, and what happened, in order. `computation` and `lanes` are for planting faults."""

    def __init__(self, seed: int, computation: type[Stateful] = Stateful, lanes: type[Lanes] = Lanes) -> None:
        self.clock = VirtualClock(seed)
        draw = self._draw = self.clock.random
        self._computation = computation
        self._lanes = lanes
        self.history: list[tuple[int, str, int]] = []
        self.requests: list[Request] = []
        self.backends: list[Weighted] = []
        self.broken_promises: list[str] = []
        self.book = Book(self)
        self.orderly = draw.random() < 0.5  # whether it is known in which order messages of a sequence come in
        self.arrivals: dict[Key, list[Request]] = defaultdict(list)
        self.doors: dict[Key, VirtualCondition] = defaultdict(self.clock.condition)
        self.cramped = False  # whether a version had less room than another
        self.went = False  # whether a version has gone, or the server goes
        self.two_versions = False
        self.nobody_stands_in = draw.random() < 0.2
        self.names_versions = draw.random() < 0.2
        self.cannot_be_sent = draw.random() < 0.2
        self.keys: list[Key] = [("", 1), ("", "1"), ("somebody", 1), ("", 2**63)][: draw.choice((1, 2, 3, 4))]
        self.policy = SequencePolicy(
            idle_ns=draw.choice((0, 10, 30, 10_000)) * MS,
            max_sequences=draw.choice((1, 2, 3, MANY)),
            window=draw.choice((1, 2, 5)),
            tombstone_ns=draw.choice((0, 5, 60_000)) * MS,
            start_timeout_ns=draw.choice((0, 3, 20)) * MS,
            evicts=draw.random() < 0.3,
            min_idle_ns=draw.choice((0, 4, 15)) * MS,
            on_removal=draw.choice((DRAIN, RESTART, CARRY_SAME_WEIGHTS, CARRY_SAME_SHAPES)),
            drain_ns=draw.choice((0, 2, 20)) * MS,
        )
        keeps_order = draw.random() < 0.2
        self.batching = BatchPolicy(
            max_rows=draw.choice((1, 2, 8)),
            max_delay_ns=draw.choice((0, 0, 1 * MS)),
            dynamic=draw.random() < 0.8,
            queue=QueuePolicy(
                max_requests=draw.choice((2, 1000, 1000)),
                timeout_ns=draw.choice((0, 0, 5)) * MS,
                allows_less=draw.random() < 0.3,
            ),
            max_queue_bytes=draw.choice((100, 1_000_000)),
            keeps_order=keeps_order,
        )
        self.metrics: dict[str, ModelMetrics] = defaultdict(ModelMetrics)
        self.manager = ModelManager(clock=self.clock, give_back=lambda: None)
        self.failovers = Failovers(self.manager, reset_seconds=0.02, clock=self.clock, load_in=self.load_in)
        self._order = Order(first=(FIRST,), spare=(SECOND,))
        self._wants: dict[int, tuple[LoadRequest, float, SequencePolicy]] = {}
        self._weights: dict[Model, float] = {}
        self._homes: list[Sequences] = []
        self._instants = sorted(int(draw.uniform(0, 50) * MS) for _ in range(draw.choice((0, 0, 1, 2, 5))))
        self._breaks = sorted(int(draw.uniform(0, 50) * MS) for _ in range(draw.choice((0, 0, 1, 2))))

    def happened(self, what: str, request: Request | None = None) -> None:
        self.history.append((self.clock.now_ns(), what, request.number if request else -1))

    @property
    def counts(self) -> list[why.SequenceCounts]:
        """What was counted of the sequences of each version."""
        return list({id(home.counts): home.counts for home in self._homes}.values())

    def weights_of(self, model: Model) -> float:
        """What a model multiplies by."""
        return self._weights[model]

    def run(self) -> None:
        """Everything from the first load to the last close. Raises `AssertionError` where a promise was not kept."""
        self.clock.run(self._main)

    # What serves.

    def _request(self, version: int, weights: float, policy: SequencePolicy) -> LoadRequest:
        request = LoadRequest(
            name="m",
            folder=VersionFolder(version, PLACE),
            config=model_config.parse(None, "m"),
            labels={},
            defaults=ServerDefaults(backend="fake"),
            metrics=lambda backend: self.metrics[backend],
            repository=Repository(PLACE),
            clock=self.clock,
        )
        self._wants[id(request)] = request, weights, policy
        return request

    def load_in(self, request: LoadRequest, candidate: Any, order: Order) -> Loaded:
        """A model of two workers; loading takes its time, and fails where nobody is to stand in."""
        self.clock.sleep(self.clock.random.uniform(0.001, 0.006))
        _, weights, policy = self._wants[id(request)]
        if self.nobody_stands_in and candidate == SECOND:
            raise RepositoryError("it cannot be loaded")
        model = Model(
            name="m",
            version=str(request.folder.number),
            spec=SPEC,
            config=pb.ModelConfig(),
            labels={},
            candidate=candidate,
            verified=True,
            metrics=self.metrics[str(candidate)],
            policy=self.batching,
            clock=self.clock,
            sequence_policy=policy,
            state_layout=StateLayout(TENSORS, f"{weights}"),
        )
        self._weights[model] = weights
        model.start([self._instance(model, weights) for _ in range(2)])
        return Loaded(model=model, request=request, order=order)

    def _instance(self, model: Model, weights: float) -> Instance:
        slow = self.clock.random.uniform(0.0002, 0.003)
        fails_on = POISON * weights
        backend = Weighted(FakeBackend(SPEC, slow, None, fails_on, sleep=self.clock.sleep), weights, self)
        guard = Guard(
            failures=2,
            healthy=lambda: not backend.broken,
            lost=fake.lost,
            hand_over=functools.partial(self.failovers.on_broken, model),
            told=False,
        )
        aside = Aside(backend, self.clock, steps=0, always=self.clock.random.random() < 0.3)
        assert model.state_layout
        return Instance(
            self._computation(aside, SPEC, model.state_layout, self.clock), lambda: self.clock.sleep(0.001), guard
        )

    def _install(self, version: int, weights: float, policy: SequencePolicy) -> None:
        request = self._request(version, weights, policy)
        with self.manager.loading("m") as entry:
            entry.lanes = entry.lanes or self._lanes("m", Epochs(1), self.clock)
            self.manager.announce(entry, str(version), object())
            loaded = self.load_in(request, FIRST, self._order)
            self.manager.install(entry, loaded, "requested", object())
            home = loaded.model.sequences
        assert home is not None
        if home not in self._homes:
            self._homes.append(home)
        self.happened(f"version {version} with weights {weights} serves")

    # What happens.

    def _main(self) -> None:
        self._install(1, 1.0, self.policy)
        self.manager.started()
        threads = [
            *(self.clock.start(client, f"client {n}") for n, client in enumerate(self._clients())),
            self.clock.start(self._operator, "operator"),
            self.clock.start(self._fate, "fate"),
        ]
        for thread in threads:
            thread.join()
        self.went = True
        self.manager.refuse_starts()
        self.manager.hurry()
        self.clock.sleep(PATIENCE_SECONDS)
        assert not self.broken_promises, "\n".join(self.broken_promises)
        never = [each.number for each in self.requests if not each.ended]
        assert not never, f"never answered: {never}"
        for arrivals in self.arrivals.values():
            self.book.check_order(arrivals)
        assert self.manager.close(PATIENCE_SECONDS)
        self.clock.sleep(PATIENCE_SECONDS)  # for who has retired
        self._check_books()

    def _clients(self) -> Iterator[Callable[[], None]]:
        for key in self.keys:
            draw = random.Random(self._draw.random())
            kind = draw.choice((self._numbering, self._numbering, self._trusting))
            yield functools.partial(kind, key, draw)
            if draw.random() < 0.4:
                yield functools.partial(self._strange, key, random.Random(draw.random()))
        yield functools.partial(self._many, random.Random(self._draw.random()))

    def _ask(self, said: Said, draw: random.Random) -> Request:
        """Sends a message, perhaps on a connection of its own, where others may overtake it."""
        request = Request(self, said, draw)
        if draw.random() < 0.3:
            self.clock.start(request.send, f"connection {request.number}")
        else:
            request.send()
        return request

    def _drawn(self, key: Key, draw: random.Random, **more: Any) -> Said:
        return Said(
            key=key,
            value=POISON if draw.random() < 0.06 else float(draw.randint(20, 999)),
            steps=draw.choice((1, 1, 2, 4)),
            malformed=draw.random() < 0.03,
            **more,
        )

    def _numbering(self, key: Key, draw: random.Random) -> None:
        """Numbers its steps, sends several at once, sends again what was not answered, and now and then what was."""
        for _ in range(draw.choice((1, 2, 3))):
            self.clock.sleep(draw.uniform(0, 0.01))
            length = draw.randint(1, 6)
            nonce = draw.choice((b"", bytes([draw.randint(1, 255), draw.randint(1, 255)])))
            script = [
                self._drawn(
                    key, draw, number=n, start=n == 0, nonce=nonce if n == 0 else b"",
                    end=n == length - 1 and draw.random() < 0.7,
                    brings=float(draw.randint(100, 999)) if n == 0 and draw.random() < 0.2 else None,
                )
                for n in range(length)
            ]  # fmt: skip
            done, tries = 0, 0
            while done < length and tries < TRIES:
                tries += 1
                first = max(0, done - draw.choice((0, 0, 0, 1, 2)))
                if done and draw.random() < 0.15:
                    self._ask(script[0], draw)
                asked = [self._ask(each, draw) for each in script[first : done + draw.choice((1, 1, 2, 3))]]
                for request in asked:
                    if draw.random() < 0.9:
                        request.over.wait(0.05)
                heard = {each.said.number for each in asked if each.answered}
                while done in heard:
                    done += 1
                failed = [each for each in asked if each.ended and not each.answered]
                if any(each.said.value == POISON or each.said.malformed for each in failed):
                    script = [_mended(each) for each in script]
                if any("must specify the START" in str(each.error) for each in failed):
                    break
                if draw.random() < 0.15:
                    self.clock.sleep(draw.uniform(0, 0.02))

    def _trusting(self, key: Key, draw: random.Random) -> None:
        """Does not number its steps, and goes on whatever it hears."""
        for _ in range(draw.choice((1, 2, 3))):
            self.clock.sleep(draw.uniform(0, 0.01))
            length = draw.randint(1, 7)
            waits = draw.choice((0.2, 0.8))
            for n in range(length):
                start = n == 0 or draw.random() < 0.03
                end = n == length - 1 and draw.random() < 0.7
                request = self._ask(self._drawn(key, draw, start=start, end=end), draw)
                if draw.random() < waits:
                    request.over.wait(0.05)
                if draw.random() < 0.15:
                    self.clock.sleep(draw.uniform(0, 0.02))

    def _strange(self, key: Key, draw: random.Random) -> None:
        """Sends what does not belong there."""
        for _ in range(draw.choice((1, 3, 6))):
            self.clock.sleep(draw.uniform(0, 0.015))
            epochs = [each.epoch for each in self.requests if each.said.key == key and each.epoch]
            sent = [each.said for each in self.requests if each.said.key == key]
            said = draw.choice((
                self._drawn(key, draw, number=draw.randint(1, 9)),
                self._drawn(key, draw),
                self._drawn(key, draw, start=True, number=draw.choice((None, 0))),
                self._drawn(key, draw, end=True),
                dataclasses.replace(draw.choice(sent), value=5.0) if sent else None,
                draw.choice(sent) if sent else None,
                self._drawn(key, draw, number=draw.choice((None, 1, 2)), epoch=draw.choice(epochs)) if epochs else None,
            ))  # fmt: skip
            if said:
                self._ask(said, draw)

    def _many(self, draw: random.Random) -> None:
        """Has steps of several sequences on one connection, and requests of none, which bring their state."""
        keys = [*self.keys[:2], ("many", 1), ("many", 2)]
        for _ in range(draw.choice((0, 2, 5))):
            self.clock.sleep(draw.uniform(0, 0.01))
            alone = self._drawn(("", 0), draw, brings=float(draw.randint(100, 999)))
            steps = [
                self._drawn(key, draw, start=draw.random() < 0.3)
                for key in draw.sample(keys, draw.randint(1, len(keys)))
            ]
            send_together([Request(self, said, draw) for said in draw.sample([alone, *steps], len(steps) + 1)])

    def _operator(self) -> None:
        """Exchanges versions in the middle: loads anew with the same weights or others, adds one, takes one away."""
        draw = random.Random(self._draw.random())
        serving = {1: 1.0}
        for at_ns in self._instants:
            self.clock.sleep(max(0, at_ns - self.clock.now_ns()) / 1e9)
            version = draw.choice(list(serving))
            weights, policy = serving[version], self.policy
            match draw.choice(("again", "again", "other weights", "other room", "add", "remove")):
                case "other weights":
                    weights = 3.0 - weights
                    self.went = True
                case "other room":
                    policy = dataclasses.replace(policy, max_sequences=draw.choice((1, 50)))
                    self.went = self.cramped = True
                case "add":
                    version, weights = max(serving) + 1, draw.choice((1.0, 2.0))
                    self.two_versions = True
                case "remove" if len(serving) > 1:
                    self.went = True
                    del serving[version]
                    with self.manager.loading("m") as entry:
                        self.manager.remove(entry, str(version), unloaded=draw.random() < 0.5)
                    self.happened(f"version {version} goes")
                    continue
            serving[version] = weights
            self._install(version, weights, policy)

    def _fate(self) -> None:
        """One of the backends that are open then breaks for good, or all of them; where nobody stands in, they mend."""
        for at_ns in self._breaks:
            self.clock.sleep(max(0, at_ns - self.clock.now_ns()) / 1e9)
            there = [each for each in self.backends if not each.closed]
            broken = there if self.clock.random.random() < 0.5 else there[:1]
            for backend in broken:
                backend.broken = True
            self.happened("breaks")
            if self.nobody_stands_in:
                self.clock.sleep(0.02)
                for backend in broken:
                    backend.broken = False

    def _check_books(self) -> None:
        """Nothing is left of any request, and the counts say what the clients have heard."""
        assert all(backend.closed for backend in self.backends), "a backend was left open"
        lanes: Lanes | None = self.manager.lanes("m")
        assert lanes is not None
        assert not lanes._lanes, f"lanes are left: {list(lanes._lanes)}"
        assert not lanes._held_bytes
        for home in self._homes:
            assert home._pool.used == home.live == len(list(home.keys())), "slots without a sequence"
            assert not home.held
            assert len(home._answers) <= home.live
        assert all(model._leases == 0 for model in self._weights), "leases are left"
        counts = self.counts
        ended = sum(count for each in counts for kind, count in each.ended.items() if kind != why.CARRIED)
        live = sum(home.live for home in self._homes)
        assert sum(each.starts for each in counts) == ended, "sequences were lost"
        assert sum(each.ended[why.EXITING] for each in counts) == live, "those that were left are told"
        repeats = sum(each.repeats for each in counts)
        answered = sum(each.answered for each in self.requests if not each.said.alone)
        unsent = sum("cannot be sent" in str(each.error) for each in self.requests)
        alone = sum(each.answered for each in self.requests if each.said.alone)
        assert answered <= sum(each.steps for each in counts) + repeats <= answered + unsent
        assert sum(metrics.requests["success"] for metrics in self.metrics.values()) == answered + alone
        assert all(metrics.in_flight == 0 for metrics in self.metrics.values())
