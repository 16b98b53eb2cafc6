"""One version of a model with two workers, and everything that may happen to it at once, in virtual time from one seed.

Requests arrive, are cancelled, run out of time and are poisonous; the model is exchanged in the middle and a backend may
break. What serves is the product's own code: manager, failover, model, queue, workers, the fake backend; only its clock, and
what loads a model, are handed in.
"""

from __future__ import annotations

import dataclasses
import functools
import random
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from protos import model_config_pb2 as pb
from serving.backends import fake
from serving.backends.base import Backend, Candidate
from serving.backends.fake import FakeBackend, Lost
from serving.batching.aside import Aside
from serving.batching.computation import Stateless
from serving.batching.guard import Guard
from serving.batching.model import Instance, Lease, Model
from serving.batching.pending import EARLY_NS, Pending
from serving.errors import (
    Cancelled,
    ComputeFailed,
    DeadlineExceeded,
    Overloaded,
    RepositoryError,
    ServingError,
    TimedOut,
)
from serving.lifecycle.failovers import Failovers
from serving.lifecycle.manager import ModelManager
from serving.loading.order import Order, ServerDefaults
from serving.loading.request import Loaded, LoadRequest
from serving.repository import model_config
from serving.repository.folders import Repository, VersionFolder
from serving.signature.tensors import Tensors
from serving.telemetry.counters import ModelMetrics
from serving.telemetry.timeline import Timeline
from tests.simulation.queues import Inspected, drawn_policy, drawn_turn, level_of, time_is_up_ns
from tests.simulation.virtual import VirtualClock
from tests.support import fake_models

MS = 1_000_000
REQUESTS = 16
POISON = 13.0
SPECS = (fake_models.spec(), fake_models.spec(per_step=True))
FIRST, SECOND = Candidate("fake", "cpu", 1), Candidate("fake", "cuda:0", 1)
PATIENCE_SECONDS = 3600.0  # who is not answered by then never will be
PLACE = Path(__file__).parent


class Breakable:
    """A backend that may be told to break for good."""

    def __init__(self, backend: Backend, world: World) -> None:
        self._backend = backend
        self._world = world
        self.broken = False
        self.closed = False
        world.backends.append(self)

    def run(self, inputs: Tensors, outputs: Sequence[str]) -> Tensors:
        assert not self.closed, "a closed backend was asked"
        if self.broken:
            raise Lost("device_lost")
        return self._backend.run(inputs, outputs)

    def close(self) -> None:
        assert not self.closed, "closed twice"
        self.closed = True
        self._backend.close()


class Request:
    """One client: what it asks, what it may hear, and what it has heard; a `batching.pending.Requester`."""

    def __init__(self, world: World, number: int, draw: random.Random) -> None:
        self.world = world
        self.number = number
        self.at_ns = int(draw.uniform(0, 40) * MS) // MS * MS  # several at the same instant
        self.decoding_ns = draw.choice((0, 0, MS // 2, 2 * MS))
        self.poison = draw.random() < 0.08
        self.cancelled_after_ns = int(draw.uniform(0, 6) * MS) if draw.random() < 0.2 else None
        self.deadline_ns = self.at_ns + int(draw.uniform(0, 12) * MS) if draw.random() < 0.2 else None
        rows, steps = draw.choice((1, 1, 1, 2, 3)), draw.choice((1, 2, 2, 3, 5, 40))
        value = POISON if self.poison else float(number + 100)
        self.expected = value * steps * fake_models.FEATURES
        inputs = {"x": np.full((rows, steps, fake_models.FEATURES), value, np.float32)}
        if draw.random() < 0.3:
            inputs["lengths"] = np.full(rows, steps)
        if draw.random() < 0.3:
            inputs["h0"] = inputs["c0"] = np.zeros((rows, *fake_models.STATE[1:]), np.float32)
        timeline = Timeline(self.at_ns)
        key = world.spec.batch_key(inputs)
        turn, size = drawn_turn(draw), draw.choice((0, 10, 60))
        self.pending = Pending(self, inputs, rows, steps, ["y"], key, timeline, self.deadline_ns, turn, size)
        self.lease: Lease | None = None
        self.outputs: Tensors | None = None
        self.ended: list[str] = []

    def ask(self) -> None:
        """Finds the model, is decoded, and waits in its queue, as `protocol.inference` does."""
        clock = self.world.clock
        clock.sleep(self.at_ns / 1e9)
        self.world.happened("arrives", self.number)
        try:
            self.lease = self.world.manager.acquire("m")
            self.lease.model.metrics.entered()
            clock.sleep(self.decoding_ns / 1e9)
            self.pending.timeline.decoded = clock.now_ns()
            self.lease.model.submit(self.pending)
        except ServingError as error:
            self.finish(error)

    def go(self) -> None:
        """The client leaves, if it is one that does."""
        if self.cancelled_after_ns is not None:
            self.world.clock.sleep((self.at_ns + self.cancelled_after_ns) / 1e9)
            self.world.happened("goes", self.number)
            self.pending.cancel()

    def encode(self, outputs: Tensors) -> None:
        self.outputs = outputs
        self.pending.timeline.encoded = self.world.clock.now_ns()

    def move(self, lease: Lease) -> None:
        assert self.lease
        self.lease.model.metrics.left()
        lease.model.metrics.entered()
        held, self.lease = self.lease, lease
        held.release()
        self.world.moved = True

    @staticmethod
    def finish_all(requesters: Sequence[Request]) -> None:
        for request in requesters:
            request.has_ended(None)
        Lease.release_all([request.lease for request in requesters if request.lease])
        for request in requesters:
            request.leaves()

    def finish(self, error: ServingError) -> None:
        self.has_ended(error)
        if self.lease:
            self.lease.model.metrics.refused("failed", 0)
            self.lease.release()
        self.leaves()

    def has_ended(self, error: ServingError | None) -> None:
        """Keeps how, and looks whether that may be."""
        outcome = "answered" if error is None else type(error).__name__
        self.world.happened(outcome, self.number)
        self.ended.append(outcome)
        if (
            self.lease
            and isinstance(self.lease.model, Inspected)
            and (error is None or isinstance(error, ComputeFailed))
        ):
            self.lease.model.left.append(self.pending)
        try:
            self.check(error)
        except AssertionError as broken:  # raised here, it would look like a fault of whoever has answered
            self.world.broken_promises.append(f"request {self.number}: {broken}")

    def leaves(self) -> None:
        """One request less of this world."""
        with self.world.changed:
            self.world.left -= 1
            self.world.changed.notify_all()

    def check(self, error: ServingError | None) -> None:
        """Whether a client that has asked this may hear that."""
        assert len(self.ended) == 1, f"request {self.number} has ended {self.ended}"
        now = self.world.clock.now_ns()
        if error is None:
            assert self.outputs is not None
            answer = self.outputs["y"]
            per_step = self.world.spec.outputs[0].steps_axis
            assert answer.shape == (self.pending.rows, *([self.pending.steps] if per_step else []), 2)
            assert (answer == self.expected).all(), f"request {self.number} got {answer}, and not {self.expected}"
            assert not self.poison
        elif isinstance(error, Cancelled):
            assert self.pending.cancelled
            assert not self.pending.timeline.started, "computed, though nobody waited"
        elif isinstance(error, DeadlineExceeded):
            assert self.deadline_ns is not None
            assert now >= self.deadline_ns - (EARLY_NS if self.pending.cancelled else 0)
        elif isinstance(error, ComputeFailed):
            assert self.poison or self.world.nobody_stands_in, error
        elif isinstance(error, TimedOut):
            until_ns = time_is_up_ns(self.pending, self.world.policy)
            assert until_ns is not None
            assert now >= until_ns
            assert not self.pending.timeline.started, "computed, though its time was up"
        else:
            assert isinstance(error, Overloaded), error
            assert 10 <= error.retry_ms <= 10_000
            assert self.lease
            policy, queue = self.world.policy, self.lease.model.queue
            too_many = queue.depth >= policy.queue_of(level_of(self.pending, policy)).max_requests
            assert too_many or (queue.depth and queue.size + self.pending.size > policy.max_queue_bytes)


class World:
    """The model, its clients, and what happened, in order."""

    def __init__(self, seed: int, computation: type[Stateless] = Stateless, **forgets: object) -> None:
        self.clock = VirtualClock(seed)
        self._computation = computation
        self._forgets = forgets  # of what its policy promises, to plant a fault
        self._models: list[Inspected] = []
        self.moved = False  # whether a request has gone from one model to another
        draw = self.clock.random
        self.spec = draw.choice(SPECS)
        self.history: list[tuple[int, str, int]] = []
        self.backends: list[Breakable] = []
        self.broken_promises: list[str] = []
        self.changed = self.clock.condition()
        self.left = REQUESTS
        self.nobody_stands_in = draw.random() < 0.3
        self.breaks_at_ns = sorted(int(draw.uniform(0, 40) * MS) for _ in range(draw.choice((0, 0, 1, 1, 2))))
        self.swaps_at_ns = sorted(int(draw.uniform(5, 40) * MS) for _ in range(draw.choice((1, 1, 2))))
        self.policy = drawn_policy(draw)
        self.metrics = {candidate: ModelMetrics() for candidate in (FIRST, SECOND)}
        self.manager = ModelManager(clock=self.clock, give_back=lambda: None)
        self.failovers = Failovers(self.manager, reset_seconds=0.02, clock=self.clock, load_in=self.load_in)
        self.requests = [Request(self, number, draw) for number in range(REQUESTS)]
        self._number_of = {request.pending: request.number for request in self.requests}

    def happened(self, what: str, number: int = -1) -> None:
        self.history.append((self.clock.now_ns(), what, number))

    def run(self) -> None:
        """Everything from the first load to the last close. Raises `AssertionError` where a promise was not kept."""
        self.clock.run(self._main)

    def load_in(self, request: LoadRequest, candidate: Candidate, order: Order) -> Loaded:
        """A model of two workers; loading takes its time, and fails where nobody is to stand in."""
        self.clock.sleep(self.clock.random.uniform(0.001, 0.01))
        if self.nobody_stands_in and self.history:
            raise RepositoryError("it cannot be loaded")
        model = Inspected(
            promised=self.policy,
            moved=lambda: self.moved,
            broken=self.broken_promises.append,
            seen=lambda what, pending: self.happened(what, self._number_of[pending]),
            name="m",
            version="1",
            spec=self.spec,
            config=pb.ModelConfig(),
            labels={},
            candidate=candidate,
            verified=True,
            metrics=self.metrics[candidate],
            policy=dataclasses.replace(self.policy, **self._forgets),
            clock=self.clock,
        )
        self._models.append(model)
        model.start([self._instance(model) for _ in range(2)])
        return Loaded(model=model, request=request, order=order)

    def _instance(self, model: Model) -> Instance:
        slow = self.clock.random.uniform(0.0005, 0.004)
        backend = Breakable(FakeBackend(self.spec, slow, None, POISON, sleep=self.clock.sleep), self)
        guard = Guard(
            failures=2,
            healthy=lambda: not backend.broken,
            lost=fake.lost,
            hand_over=functools.partial(self._hand_over, model),
            told=False,
        )
        aside = Aside(backend, self.clock, steps=0, always=self.clock.random.random() < 0.3)
        return Instance(self._computation(aside, self.spec, self.clock), lambda: self.clock.sleep(0.001), guard)

    def _hand_over(self, model: Inspected, requests: list[Pending], reason: str, error: Exception) -> None:
        model.hands_over(requests)
        self.failovers.on_broken(model, requests, reason, error)

    def _main(self) -> None:
        request = LoadRequest(
            name="m",
            folder=VersionFolder(1, PLACE),
            config=model_config.parse(None, "m"),
            labels={},
            defaults=ServerDefaults(backend="fake"),
            metrics=lambda backend: self.metrics[FIRST],
            repository=Repository(PLACE),
            clock=self.clock,
        )
        order = Order(first=(FIRST,), spare=(SECOND,))
        self._install(request, FIRST, order)
        self.manager.started()
        threads = [
            *(self.clock.start(one.ask, f"client {one.number}") for one in self.requests),
            *(self.clock.start(one.go, f"leaving {one.number}") for one in self.requests if one.cancelled_after_ns),
            self.clock.start(lambda: self._operator(request, order), "operator"),
            self.clock.start(self._break, "fate"),
        ]
        for thread in threads:
            thread.join()
        with self.changed:
            over = self.changed.wait_for(lambda: self.left <= 0, PATIENCE_SECONDS)
        assert not self.broken_promises, self.broken_promises
        assert over, f"never answered: {[one.number for one in self.requests if not one.ended]}"
        assert self.manager.close(PATIENCE_SECONDS)
        self.clock.sleep(PATIENCE_SECONDS)  # for who has retired
        self._check_books()

    def _install(self, request: LoadRequest, candidate: Candidate, order: Order) -> None:
        with self.manager.loading("m") as entry:
            self.manager.announce(entry, "1", object())
            loaded = dataclasses.replace(self.load_in(request, candidate, order))
            self.manager.install(entry, loaded, "requested", object())
        self.happened("serves")

    def _operator(self, request: LoadRequest, order: Order) -> None:
        """Exchanges the model in the middle, perhaps twice."""
        for at_ns in self.swaps_at_ns:
            self.clock.sleep(max(0, at_ns - self.clock.now_ns()) / 1e9)
            try:
                self._install(request, FIRST, order)
            except ServingError:
                assert self.nobody_stands_in

    def _break(self) -> None:
        """One of the backends that are open then breaks for good, or all of them; where nobody stands in, they mend."""
        for at_ns in self.breaks_at_ns:
            self.clock.sleep(max(0, at_ns - self.clock.now_ns()) / 1e9)
            there = [each for each in self.backends if not each.closed]
            broken = there if self.clock.random.random() < 0.5 else there[:1]
            for backend in broken:
                backend.broken = True
                self.happened("breaks", self.backends.index(backend))
            if self.nobody_stands_in:
                self.clock.sleep(0.02)
                for backend in broken:
                    backend.broken = False

    def _check_books(self) -> None:
        """Every backend is closed, and the counts say what the clients have heard."""
        assert all(backend.closed for backend in self.backends), "a backend was left open"
        for model in self._models:
            model.check_order()
        answered = sum(one.ended == ["answered"] for one in self.requests)
        assert sum(metrics.requests["success"] for metrics in self.metrics.values()) == answered
        assert [metrics.in_flight for metrics in self.metrics.values()] == [0, 0]
