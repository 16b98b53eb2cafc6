from __future__ import annotations

import contextlib
from collections.abc import Iterator

from benchmarks.peers import campaign
from benchmarks.peers.errors import PeerError
from benchmarks.peers.load import CLOSED, IN_FLIGHT, LOADS, MUTUAL_TLS, OPEN, PERF, PLAIN, TLS, Load
from benchmarks.peers.measured import Figures, Measured
from benchmarks.peers.server import EDGE, FLOOR, MLSERVER, OURS, PUBLIC, TRITON, Server
from serving.errors import StartupError

ALL = (OURS, TRITON, MLSERVER, EDGE, FLOOR, PUBLIC)
ONE = Load(CLOSED, IN_FLIGHT, 1)


class FakeBench:
    """Answers all loads at once; what is in `broken` fails: a server, or a server under a load."""

    def __init__(self, *broken: object) -> None:
        self.broken = broken
        self.turns: list[tuple[str, str]] = []
        self.rates: set[float] = set()

    def prepare(self, name: str) -> None:
        self._fail(("install", name))

    def prepare_perf_analyzer(self) -> None:
        self._fail(("install", PERF))

    def capacity(self, name: str, in_flight: int) -> float:
        self._fail(("capacity", name))
        return 100.0 * in_flight

    @contextlib.contextmanager
    def serve(self, name: str, connection: str) -> Iterator[Server]:
        self._fail(("start", name))
        self.turns.append((name, connection))
        yield Server(name, "", 0)

    def drive(self, server: Server, load: Load, rate: float) -> Figures:
        self._fail((server.name, load))
        if load.client == OPEN:
            self.rates.add(rate)
        return Figures(100.0, 10)

    def _fail(self, what: object) -> None:
        if what in self.broken:
            raise PeerError(f"{what} is broken")


def run(bench: FakeBench, rounds: int = 2) -> Measured[Load]:
    return campaign.run(bench, ALL, LOADS, rounds)  # type: ignore[arg-type]


def test_servers_take_turns_and_are_started_anew_for_tls() -> None:
    bench = FakeBench()
    measured = run(bench)
    turn = [(name, connection) for name in (OURS, TRITON) for connection in (PLAIN, TLS, MUTUAL_TLS)]
    turn += [(name, PLAIN) for name in (MLSERVER, EDGE, FLOOR, PUBLIC)]
    assert bench.turns == [*turn, *turn]
    assert not measured.failures
    assert all(set(runs) == {0, 1} for runs in measured.figures.values())
    assert {load for name, load in measured.figures if name == OURS} == set(LOADS)


def test_the_open_loop_has_one_rate_for_all() -> None:
    bench = FakeBench()
    assert run(bench).rate == 0.7 * 6400
    assert bench.rates == {0.7 * 6400}


def test_a_server_that_cannot_be_installed_or_started_stops_nobody() -> None:
    measured = run(FakeBench(("install", FLOOR), ("start", MLSERVER)))
    assert {name for name, _ in measured.figures} == {OURS, TRITON, EDGE, PUBLIC}
    assert set(measured.failures) == {(FLOOR, None), (MLSERVER, None)}


def test_a_constant_that_cannot_be_recorded_from_our_server_stops_nobody() -> None:
    class NotStarting(FakeBench):
        def prepare(self, name: str) -> None:
            if name == EDGE:
                raise StartupError("ngh2 is not installed")

    measured = run(NotStarting())
    assert measured.failures == {(EDGE, None): "ngh2 is not installed"}
    assert {name for name, _ in measured.figures} == {*ALL} - {EDGE}


def test_a_load_that_fails_stops_no_other_load_and_a_new_server_takes_these() -> None:
    bench = FakeBench((TRITON, ONE))
    measured = run(bench, rounds=1)
    assert bench.turns.count((TRITON, PLAIN)) == 2
    assert set(measured.failures) == {(TRITON, ONE)}
    assert {load for name, load in measured.figures if name == TRITON} == set(LOADS) - {ONE}


def test_without_perf_analyzer_the_loops_are_measured() -> None:
    measured = run(FakeBench(("install", PERF)))
    assert {load.client for _, load in measured.figures} == {CLOSED, OPEN}
    assert set(measured.failures) == {(PERF, None)}


def test_without_triton_there_is_no_rate_for_the_open_loop() -> None:
    measured = run(FakeBench(("capacity", TRITON)))
    assert {load.client for _, load in measured.figures} == {CLOSED, PERF}
    assert set(measured.failures) == {(OPEN, None)}


def test_a_server_that_does_not_start_with_tls_keeps_its_other_figures() -> None:
    class NoTls(FakeBench):
        @contextlib.contextmanager
        def serve(self, name: str, connection: str) -> Iterator[Server]:
            if connection != PLAIN:
                raise PeerError("no TLS")
            yield Server(name, "", 0)

    measured = run(NoTls())
    assert set(measured.failures) == {(OURS, None), (TRITON, None)}
    assert {load.connection for _, load in measured.figures} == {PLAIN}
    assert {name for name, _ in measured.figures} == set(ALL)
