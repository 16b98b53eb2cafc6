"""What the child does for whoever asks: it loads as the server does, opens and runs files, and says why not."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from serving.backends.base import Candidate
from serving.backends.fake import FakeBackend
from serving.child.process import Child
from serving.errors import BackendUnavailable
from serving.loading import trial
from serving.loading.trial import answer, described
from serving.verification import golden
from tests.support import fake_models
from tests.support.loading import wanted

FAKE = Candidate("fake", "cpu", 1)


def told(*_: object) -> None:
    """Nothing is made of signs of life here."""


def test_a_version_is_loaded_warmed_up_and_closed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake_models.write(tmp_path)
    rows: list[int] = []
    closed: list[FakeBackend] = []
    run = FakeBackend.run
    monkeypatch.setattr(
        FakeBackend, "run", lambda self, sent, names: rows.append(len(sent["x"])) or run(self, sent, names)
    )
    monkeypatch.setattr(FakeBackend, "close", lambda self: closed.append(self))  # noqa: PLW0108 - bound, as a method is
    request = wanted(tmp_path, "max_batch_size: 16 instance_group { count: 2 }")
    assert answer(described(request, FAKE, ""), {}, told) == {}
    assert len(closed) == 2
    assert max(rows) == 16


def test_a_model_that_is_to_be_stateful_is_loaded_as_one(tmp_path: Path) -> None:
    fake_models.write(tmp_path, model_spec=dataclasses.replace(fake_models.spec(), streamable=False))
    assert answer(described(wanted(tmp_path, stateful=("other",)), FAKE, ""), {}, told) == {}
    for request in (wanted(tmp_path, stateful=("fake",)), wanted(tmp_path, "sequence_batching {}")):
        asked = json.loads(json.dumps(described(request, FAKE, "")))
        refused = answer(asked, {}, told)
        assert refused["refused"] == "ModelConfigError"
        assert "sequence_batching: the model cannot be stateful" in refused["said"]


def test_a_shadow_is_loaded_as_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake_models.write(tmp_path)
    closed: list[FakeBackend] = []
    monkeypatch.setattr(FakeBackend, "close", lambda self: closed.append(self))  # noqa: PLW0108 - bound, as a method is
    config = "instance_group { count: 2 }"
    request = dataclasses.replace(wanted(tmp_path, config), wrap=lambda backend: backend)
    assert answer(described(request, FAKE, ""), {}, told) == {}
    assert len(closed) == 1


def test_what_the_loader_refuses_is_an_answer(tmp_path: Path) -> None:
    folder = fake_models.write(tmp_path, fail_on=1.0)
    refused = answer(described(wanted(tmp_path), FAKE, ""), {}, told)
    assert refused["refused"] == "VerificationFailed"
    assert refused["said"].endswith("cannot run its golden samples: RuntimeError: asked to fail on 1.0")
    (folder / golden.FILE_NAME).write_bytes(b"")
    assert answer(described(wanted(tmp_path), FAKE, ""), {}, told)["refused"] == "RepositoryError"


def test_a_file_is_opened_and_run_as_often_as_it_is_asked(tmp_path: Path) -> None:
    folder = fake_models.write(tmp_path)
    (sample,) = golden.read_samples(folder / golden.FILE_NAME)
    fields = {
        "backend": "fake",
        "artifact": str(folder / "model.fake.json"),
        "device": "cpu",
        "options": {"threads": 1},
    }
    assert answer({"do": "open", "spec": fake_models.spec().to_json(), **fields}, {}, told) == {}
    for careful in (True, False):
        asked = {"do": "run", "backend": "fake", "outputs": ["y"], "careful": careful}
        _, arrays = answer(asked, sample.inputs, told)
        np.testing.assert_array_equal(arrays["y"], sample.outputs["y"])


def test_what_a_file_states_and_whether_its_runtime_is_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stated = answer({"do": "stated", "backend": "fake", "artifact": str(tmp_path / "model.fake.json")}, {}, told)
    assert (stated["refused"], "it needs a spec.json" in stated["said"]) == ("RepositoryError", True)
    assert answer({"do": "available", "backend": "fake", "device": "cpu"}, {}, told) == {}

    class Special(BackendUnavailable):
        """A class that only one room knows."""

    def missing(device: str) -> None:
        raise Special("no")

    monkeypatch.setattr("serving.backends.fake.available", missing)
    refused = answer({"do": "available", "backend": "fake", "device": "cpu"}, {}, told)
    assert refused == {"refused": "BackendUnavailable", "said": "no"}


def test_python_that_goes_on_is_a_sign_of_life_and_a_call_that_does_not_come_back_is_none(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(trial, "ALIVE_SECONDS", 0.001)
    signs: list[int] = []
    heard = threading.Semaphore(0)

    def tell() -> None:
        signs.append(1)
        heard.release()

    with trial._alive(tell):
        for _ in range(5):
            while not heard.acquire(blocking=False):  # goes on
                pass
    signs.clear()
    stuck = threading.Event()
    with trial._alive(tell):
        stuck.wait(0.2)  # one call, some hundred looks
    assert len(signs) < 20


@pytest.fixture(scope="module")
def child() -> Iterator[Child]:
    with contextlib.closing(Child(trial.PROGRAM)) as made:
        yield made


def test_it_is_a_program_for_a_child(tmp_path: Path, child: Child) -> None:
    fake_models.write(tmp_path)
    request: Any = described(wanted(tmp_path), FAKE, "")
    assert child.ask(request).header == {}
    assert child.ask({**request, "path": str(tmp_path / "nothing")}).header["refused"] == "RepositoryError"
