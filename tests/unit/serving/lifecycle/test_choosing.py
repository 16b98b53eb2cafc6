"""What is measured when, and what takes over: in virtual time, with a child that takes as long as it is told."""

from __future__ import annotations

import dataclasses
import logging
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from protos import model_config_pb2 as pb
from serving.backends.base import Candidate, Measured
from serving.backends.fake import FakeBackend
from serving.batching.computation import Stateless
from serving.batching.guard import Guard
from serving.batching.model import Instance, Model
from serving.batching.policy import BatchPolicy
from serving.errors import RepositoryError
from serving.lifecycle import choosing
from serving.lifecycle.choosing import IDLE_SECONDS, MOST_TRIES, Choosing
from serving.lifecycle.manager import ModelManager
from serving.loading.measurements import Measurements
from serving.loading.measuring import ROWS
from serving.loading.order import Order, order
from serving.loading.request import Loaded, LoadRequest
from serving.repository.folders import VersionFolder
from tests.simulation.virtual import VirtualClock
from tests.support import fake_models
from tests.support.loading import wanted

ONNX, TORCH, TF = (Candidate(name, "cpu", 1) for name in ("onnx_runtime", "torchscript", "saved_model"))
WORTH_A_SWAP = {ONNX: 200e-6, TORCH: 100e-6, TF: 400e-6}
NOT_WORTH_IT = {ONNX: 130e-6, TORCH: 100e-6, TF: 400e-6}
CHILD_SECONDS = 2.0  # that a measurement of one backend takes


@pytest.fixture(autouse=True)
def _another_framework(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing but ONNX Runtime is in the process, whatever other tests have brought in."""
    monkeypatch.setattr("serving.backends.brought_in", lambda name: name == "onnx_runtime")


def figure(candidate: Candidate, seconds: float) -> Measured:
    return Measured(candidate, {rows: rows * seconds for rows in ROWS})


class Stage:
    """A version in three formats, served by rule; everything that happens has its second."""

    def __init__(self, root: Path, seed: int, seconds: dict[Candidate, float]) -> None:
        self.clock = VirtualClock(seed)
        self.root = root
        self.seconds = seconds
        self.instead: dict[Candidate, Measured] = {}  # what is measured of these
        self.cannot_load: set[Candidate] = set()
        self.history: list[tuple[float, str]] = []
        self.manager = ModelManager(clock=self.clock, give_back=lambda: None)
        self.measurements = Measurements(cache=lambda: None)
        self.choosing = Choosing(
            self.manager, self.measurements, clock=self.clock, measure=self.measure, load_in=self.load_in
        )
        folder = fake_models.write(root)
        (folder / "model.fake.json").unlink()
        for name in ("model.onnx", "model.pt", "model.savedmodel"):
            (folder / name).touch()

    def happened(self, what: str) -> None:
        self.history.append((self.clock.now_ns() / 1e9, what))

    def told(self) -> list[str]:
        return [what for _, what in self.history]

    def when(self, what: str) -> list[float]:
        """The seconds at which this happened."""
        return [round(at, 1) for at, one in self.history if one == what]

    def measure(
        self, folder: VersionFolder, asked: Sequence[Candidate], *, allow_tf32: bool, given_up: Callable[[], bool]
    ) -> list[Measured]:
        (one,) = asked
        self.happened(f"measures {one}")
        until = self.clock.now_ns() + int(CHILD_SECONDS * 1e9)
        while self.clock.now_ns() < until:
            self.clock.sleep(0.02)
            if given_up():
                self.happened("gives up")
                return []
        self.happened(f"measured {one}")
        return [self.instead.get(one) or figure(one, self.seconds[one])]

    def load_in(self, request: LoadRequest, candidate: Candidate, chosen: Order) -> Loaded:
        self.clock.sleep(0.5)
        if candidate in self.cannot_load:
            raise RepositoryError("its file is damaged")
        model = Model(
            name="fake",
            version="1",
            spec=fake_models.spec(),
            config=pb.ModelConfig(),
            labels={},
            candidate=candidate,
            verified=True,
            metrics=request.metrics(candidate.backend),
            policy=BatchPolicy(),
            clock=self.clock,
        )
        backend = FakeBackend(fake_models.spec(), 0.0, None, None)
        model.start([Instance(Stateless(backend, fake_models.spec(), self.clock), lambda: None, Guard())])
        return Loaded(model=model, request=request, order=chosen)

    def serve(self, **wishes: Any) -> Loaded:
        """As the control of the repository does."""
        request = dataclasses.replace(wanted(self.root, **{"backend": "auto", "threads": 1} | wishes), clock=self.clock)
        chosen = order(request.config, request.defaults, request.folder, self.measurements.find)
        with self.manager.loading("fake") as entry:
            request = dataclasses.replace(request, metrics=entry.counts("1"))
            self.manager.announce(entry, "1", request.identity())
            loaded = self.load_in(request, chosen.first[0], chosen)
            loaded = dataclasses.replace(loaded, order=chosen.serving(chosen.first[0]))
            self.manager.install(entry, loaded, "requested", request.identity())
        self.choosing.look()
        return loaded

    def remove(self) -> None:
        with self.manager.loading("fake") as entry:
            self.manager.remove(entry, "1", unloaded=True)

    @property
    def serving(self) -> Loaded:
        (loaded,) = self.manager.serving()
        return loaded

    def chosen(self) -> str:
        """What `lstm-admin index` shows."""
        return self.serving.model.config.parameters["lstm_serving.chosen"].string_value

    def play(self, scene: Callable[[], None]) -> None:
        """The server's life: the first load, the scene, and the end, after which nothing may be left."""

        def main() -> None:
            self.serve()
            self.manager.started()
            self.choosing.begin()
            scene()
            self.manager.closing.set()
            assert self.choosing.close(10)
            assert self.manager.close(10)

        self.clock.run(main)


@pytest.fixture(params=range(4))
def stage(tmp_path: Path, request: pytest.FixtureRequest) -> Stage:
    """In several orders of whatever happens at once."""
    return Stage(tmp_path, request.param, WORTH_A_SWAP)


def test_what_serves_by_rule_is_measured_when_nobody_has_asked_for_five_seconds(stage: Stage) -> None:
    def scene() -> None:
        for _ in range(10):
            stage.clock.sleep(2)
            stage.manager.silence.broken()
        assert stage.history == []
        asked_at = stage.clock.now_ns() / 1e9
        stage.clock.sleep(30)
        assert stage.when("measures onnx_runtime") == [round(asked_at + IDLE_SECONDS, 1)]

    stage.play(scene)
    assert stage.told() == [f"{does} {one}" for one in (ONNX, TORCH, TF) for does in ("measures", "measured")]


def test_who_is_better_takes_over_as_in_any_swap(stage: Stage) -> None:
    def scene() -> None:
        lease = stage.manager.acquire("fake")
        stage.clock.sleep(30)
        assert stage.serving.model.candidate == TORCH
        assert lease.model.candidate == ONNX, "whoever has found the old one is answered by it"
        lease.release()
        assert stage.serving.order.how == "measured"
        assert [one.candidate for one in stage.serving.order.measured] == [TORCH, ONNX, TF]
        assert stage.serving.order.first[0] == TORCH
        assert stage.manager.swaps.snapshot() == {("fake", "1", "onnx_runtime", "torchscript", "measured"): 1}

    stage.play(scene)


def test_what_is_measured_and_about_to_be_swapped_is_told_as_that(stage: Stage) -> None:
    def scene() -> None:
        while "measures saved_model" not in stage.told():
            stage.clock.sleep(0.1)
        metrics = stage.serving.model.metrics
        metrics.entered()  # a swap waits for it
        stage.clock.sleep(CHILD_SECONDS + 3)
        assert stage.told()[-1] == "measured saved_model"
        assert stage.chosen() == "measured, being swapped to torchscript"
        metrics.left()
        while not stage.manager.is_loading:
            stage.clock.sleep(0.1)
        assert stage.serving.model.candidate == ONNX
        assert stage.chosen() == "measured, being swapped to torchscript"
        stage.clock.sleep(5)
        assert stage.serving.model.candidate == TORCH

    stage.play(scene)


def test_who_is_not_much_better_does_not(tmp_path: Path) -> None:
    stage = Stage(tmp_path, 1, NOT_WORTH_IT)

    def scene() -> None:
        stage.clock.sleep(30)
        assert stage.serving.model.candidate == ONNX
        assert stage.chosen() == "measured"
        assert len(stage.serving.order.measured) == 3
        assert stage.manager.swaps.snapshot() == {}

    stage.play(scene)


def test_what_becomes_worth_it_when_another_model_has_brought_the_framework_in(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stage = Stage(tmp_path, 1, NOT_WORTH_IT)

    def scene() -> None:
        stage.clock.sleep(30)
        assert stage.serving.model.candidate == ONNX
        monkeypatch.setattr("serving.backends.brought_in", lambda name: True)
        stage.choosing.look()  # something was loaded
        stage.clock.sleep(10)
        assert stage.serving.model.candidate == TORCH

    stage.play(scene)


def test_a_request_ends_the_measurement_and_what_was_found_stays(stage: Stage) -> None:
    def scene() -> None:
        stage.clock.sleep(IDLE_SECONDS + CHILD_SECONDS + 1)  # in the second backend
        assert stage.told()[-1] == "measures torchscript"
        assert stage.chosen() == "by rule, being measured"
        stage.manager.silence.broken()
        stage.clock.sleep(0.1)
        assert stage.told()[-1] == "gives up"
        assert stage.chosen() == "by rule, to be measured when nobody asks"
        stage.clock.sleep(60)
        assert stage.serving.model.candidate == TORCH

    stage.play(scene)
    assert stage.told() == [
        *("measures onnx_runtime", "measured onnx_runtime", "measures torchscript", "gives up"),
        *("measures torchscript", "measured torchscript", "measures saved_model", "measured saved_model"),
    ]


def test_it_is_tried_again_less_and_less_often(stage: Stage) -> None:
    """Somebody asks one second after it has begun, each time."""

    def scene() -> None:
        for tries in range(1, 9):
            while stage.told().count("measures onnx_runtime") < tries:
                stage.clock.sleep(0.5)
            stage.clock.sleep(1)
            stage.manager.silence.broken()
        stage.clock.sleep(0.1)

    stage.play(scene)
    begun, ended = stage.when("measures onnx_runtime"), stage.when("gives up")
    pauses = [again - before for before, again in zip(ended, begun[1:], strict=False)]
    assert pauses == pytest.approx([5, 10, 20, 40, 80, 160, 300], abs=0.2)


def test_nothing_is_measured_while_a_request_is_being_answered_or_a_model_loaded(stage: Stage) -> None:
    def scene() -> None:
        metrics = stage.serving.model.metrics
        metrics.entered()
        stage.clock.sleep(60)
        assert stage.history == []
        metrics.left()
        with stage.manager.at_work():
            stage.clock.sleep(60)
            assert stage.history == []
        stage.clock.sleep(1 + CHILD_SECONDS / 2)
        assert stage.told() == ["measures onnx_runtime"]
        with stage.manager.at_work():
            stage.clock.sleep(0.1)
            assert stage.told()[-1] == "gives up"
        stage.clock.sleep(1.5)
        assert stage.told()[-1] == "measures onnx_runtime", "a load puts nothing off"

    stage.play(scene)


def test_a_version_that_is_unloaded_meanwhile_is_not_measured_on(stage: Stage) -> None:
    def scene() -> None:
        stage.clock.sleep(IDLE_SECONDS + 1)
        stage.remove()
        stage.clock.sleep(60)
        assert stage.manager.serving() == []

    stage.play(scene)
    assert stage.told() == ["measures onnx_runtime", "gives up"]


def test_a_version_that_is_swapped_by_somebody_meanwhile_is_as_they_say(stage: Stage) -> None:
    def scene() -> None:
        stage.clock.sleep(IDLE_SECONDS + 1)
        stage.serve(backend="saved_model")
        stage.clock.sleep(60)
        assert stage.serving.model.candidate == TF

    stage.play(scene)
    assert stage.told() == ["measures onnx_runtime", "gives up"]


def test_who_was_unloaded_while_the_better_one_was_loaded_does_not_come_back(stage: Stage) -> None:
    def scene() -> None:
        while not stage.manager.is_loading:
            stage.clock.sleep(0.1)
        stage.remove()
        stage.clock.sleep(60)
        assert stage.manager.serving() == []

    stage.play(scene)


def test_the_end_of_the_server_ends_the_measurement(stage: Stage) -> None:
    stage.play(lambda: stage.clock.sleep(IDLE_SECONDS + 1))
    assert stage.told() == ["measures onnx_runtime", "gives up"]
    assert stage.history[1][0] - stage.history[0][0] < 1.5


def test_the_end_of_the_server_while_the_better_one_is_loaded_is_no_failure(
    stage: Stage, caplog: pytest.LogCaptureFixture
) -> None:
    def scene() -> None:
        while not stage.manager.is_loading:
            stage.clock.sleep(0.1)

    stage.play(scene)
    assert stage.manager.swaps.snapshot() == {}
    assert [one.message for one in caplog.records if one.levelno >= logging.WARNING] == []


def test_whoever_loads_one_model_after_the_other_is_not_measured_in_between(stage: Stage) -> None:
    def scene() -> None:
        for _ in range(5):
            stage.clock.sleep(4)
            stage.choosing.look()
        assert stage.history == []
        stage.clock.sleep(IDLE_SECONDS + 0.1)
        assert stage.told() == ["measures onnx_runtime"]

    stage.play(scene)


def by_chance(candidate: Candidate) -> Measured:
    return Measured(candidate, failed="its process was ended by somebody else", by_chance=True)


def test_a_process_that_somebody_ends_is_tried_again_but_not_for_ever(stage: Stage) -> None:
    """Nothing is wrong with the file then, and nobody is told so."""
    stage.instead = {TORCH: by_chance(TORCH)}

    def scene() -> None:
        stage.clock.sleep(60)
        assert stage.serving.model.candidate == ONNX
        assert stage.chosen() == "measured, torchscript could not be measured: its process was ended by somebody else"
        assert stage.serving.remark == ""
        assert stage.manager.failures.snapshot() == {}

    stage.play(scene)
    assert stage.told().count("measures torchscript") == MOST_TRIES


def test_who_serves_is_not_moved_away_by_whoever_ends_its_measurement(stage: Stage) -> None:
    stage.instead = {ONNX: by_chance(ONNX)}

    def scene() -> None:
        stage.clock.sleep(120)
        assert stage.serving.model.candidate == ONNX
        assert stage.chosen() == "by rule, onnx_runtime could not be measured: its process was ended by somebody else"
        assert stage.serve().model.candidate == ONNX
        assert stage.manager.failures.snapshot() == {}

    stage.play(scene)
    assert stage.told().count("measures onnx_runtime") == MOST_TRIES


def test_each_backend_has_its_tries(stage: Stage) -> None:
    stage.instead = {ONNX: by_chance(ONNX), TORCH: by_chance(TORCH)}
    stage.play(lambda: stage.clock.sleep(300))
    assert [stage.told().count(f"measures {one}") for one in (ONNX, TORCH, TF)] == [MOST_TRIES, MOST_TRIES, 1]


def test_a_better_one_that_cannot_be_loaded_is_not_tried_again(stage: Stage, caplog: pytest.LogCaptureFixture) -> None:
    stage.cannot_load = {TORCH}

    def scene() -> None:
        stage.clock.sleep(120)
        assert stage.serving.model.candidate == ONNX
        assert stage.serving.remark == "torchscript cannot serve it: its file is damaged"

    stage.play(scene)
    said = [one for one in caplog.messages if "torchscript" in one]
    assert said == ["torchscript cannot take over: its file is damaged", "not in torchscript: its file is damaged"]


def test_files_that_have_changed_since_are_neither_measured_nor_served(stage: Stage) -> None:
    """Nobody has asked for the new ones: a swap would bring them in."""

    def scene() -> None:
        (stage.root / "fake" / "1" / "model.onnx").write_bytes(b"changed")
        stage.clock.sleep(60)

    stage.play(scene)
    assert stage.history == []


def gone(stage: Stage) -> None:
    shutil.rmtree(stage.root / "fake")


def unloaded_and_gone(stage: Stage) -> None:
    """As a model is that was sent by RPC."""
    stage.remove()
    gone(stage)


def exchanged(stage: Stage) -> None:
    (stage.root / "fake" / "1" / "model.onnx").write_bytes(b"changed")


@pytest.mark.parametrize("happens", [gone, unloaded_and_gone, exchanged])
def test_a_version_whose_files_go_while_it_is_measured_is_quietly_left_alone(
    happens: Callable[[Stage], None], stage: Stage, caplog: pytest.LogCaptureFixture
) -> None:
    """What was measured may be of the old files or of the new ones."""

    def scene() -> None:
        stage.clock.sleep(IDLE_SECONDS + 1)
        happens(stage)
        kept = len(list(stage.root.rglob(".measured/*")))
        stage.clock.sleep(60)
        assert len(list(stage.root.rglob(".measured/*"))) == kept == 0

    stage.play(scene)
    assert stage.told()[0] == "measures onnx_runtime"
    assert len(stage.told()) == 2
    assert [one.message for one in caplog.records if one.levelno >= logging.WARNING] == []


@pytest.mark.parametrize("happens", [gone, unloaded_and_gone])
def test_what_raises_because_the_files_have_gone_is_no_failure(
    happens: Callable[[Stage], None], stage: Stage, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)

    def measure(*_: object, **__: object) -> list[Measured]:
        happens(stage)
        raise ValueError("it holds no spec.json")

    stage.choosing._measure = measure
    stage.play(lambda: stage.clock.sleep(60))
    assert [one.message for one in caplog.records if one.levelno >= logging.WARNING] == []
    assert caplog.messages.count("left alone, as it was changed or taken away: it holds no spec.json") == 1


@pytest.mark.parametrize("happens", [gone, exchanged])
def test_a_better_one_that_cannot_be_loaded_as_its_files_have_gone_is_no_failure(
    happens: Callable[[Stage], None], stage: Stage, caplog: pytest.LogCaptureFixture
) -> None:
    stage.cannot_load = {TORCH}

    def scene() -> None:
        while not stage.manager.is_loading:
            stage.clock.sleep(0.1)
        happens(stage)
        stage.clock.sleep(60)
        assert stage.serving.model.candidate == ONNX

    stage.play(scene)
    assert [one.message for one in caplog.records if one.levelno >= logging.WARNING] == []


def test_a_better_one_loaded_from_files_that_were_exchanged_meanwhile_does_not_take_over(stage: Stage) -> None:
    def scene() -> None:
        while not stage.manager.is_loading:
            stage.clock.sleep(0.1)
        exchanged(stage)
        stage.clock.sleep(60)
        assert stage.serving.model.candidate == ONNX
        assert stage.manager.swaps.snapshot() == {}
        assert stage.chosen() == "by rule, left alone, as its files have changed since"

    stage.play(scene)


def test_what_was_asked_for_is_left_alone(stage: Stage) -> None:
    def scene() -> None:
        stage.serve(backend="saved_model")
        stage.clock.sleep(60)
        assert stage.serving.model.candidate == TF

    stage.play(scene)
    assert stage.history == []


def test_what_is_known_from_before_is_served_at_once_and_not_measured(stage: Stage) -> None:
    known = [figure(one, seconds) for one, seconds in WORTH_A_SWAP.items()]
    folder = wanted(stage.root, backend="auto").folder
    stage.measurements.keep(folder, list(WORTH_A_SWAP), known)

    def scene() -> None:
        assert stage.serving.model.candidate == TORCH
        stage.clock.sleep(60)

    stage.play(scene)
    assert stage.history == []


@pytest.mark.parametrize("where", ["measuring", "deciding"])
def test_what_was_not_foreseen_is_logged_once_and_harms_nobody(
    where: str, stage: Stage, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise ZeroDivisionError

    if where == "measuring":
        stage.choosing._measure = fail  # type: ignore[assignment]
    else:
        monkeypatch.setattr(choosing, "order", fail)

    def scene() -> None:
        stage.clock.sleep(60)
        assert stage.serving.model.candidate == ONNX

    stage.play(scene)
    (record,) = [one for one in caplog.records if one.levelno == logging.ERROR]
    assert record.message.startswith(
        "choosing a backend for model 'fake' version 1 failed in a way that was not foreseen"
    )
