"""Which versions need a trial, and what makes a trial another one."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Callable
from pathlib import Path

import pytest

from serving.backends.base import Candidate
from serving.loading.keys import key_of, needed, ours
from serving.loading.order import ServerDefaults
from serving.loading.request import LoadRequest
from serving.repository import model_config
from tests.support.loading import UNREAD, unread, unread_and_described

ONNX = Candidate("onnx_runtime", "cpu", 1)
DIGEST = hashlib.sha256(UNREAD).hexdigest()


@pytest.fixture
def request_(tmp_path: Path) -> LoadRequest:
    return unread(tmp_path / "repository")


@pytest.mark.parametrize(
    "change",
    [
        lambda one: (one.folder.path / "model.onnx").write_bytes(b"another"),
        lambda one: (one.folder.path / "weights.data").write_bytes(b"beside it"),
        lambda one: (one.folder.path / "model.onnx").rename(one.folder.path / "other") and None,
    ],
)
def test_other_files_are_tried_again(change: Callable[[LoadRequest], object], request_: LoadRequest) -> None:
    before = key_of(request_, ONNX)
    change(request_)
    assert key_of(request_, ONNX) != before


def test_the_artefacts_of_other_backends_do_not_count(request_: LoadRequest) -> None:
    before = key_of(request_, ONNX)
    (request_.folder.path / "model.pt").write_bytes(b"the same in another format")
    (request_.folder.path / "model.savedmodel").mkdir()
    (request_.folder.path / "model.savedmodel" / "saved_model.pb").write_bytes(b"and another")
    assert key_of(request_, ONNX) == before


def test_what_a_trial_is_remembered_by(request_: LoadRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    found = [
        key_of(request_, ONNX),
        key_of(request_, dataclasses.replace(ONNX, threads=2)),
        key_of(request_, dataclasses.replace(ONNX, device="cuda:0")),
        key_of(dataclasses.replace(request_, defaults=ServerDefaults(allow_tf32=True)), ONNX),
        key_of(dataclasses.replace(request_, wrap=lambda backend: backend), ONNX),
        key_of(dataclasses.replace(request_, config=model_config.parse("max_batch_size: 8", "bare")), ONNX),
    ]
    monkeypatch.setattr("serving.backends.onnx_runtime.installed_version", lambda *names: "9.9")
    found.append(key_of(request_, ONNX))
    monkeypatch.setattr("serving.machine.devices.processor", lambda: "another")
    found.append(key_of(request_, ONNX))
    assert len({json.dumps(key, sort_keys=True) for key in found}) == len(found)


@pytest.mark.parametrize(
    ("source", "is_ours"),
    [
        ({"export": {"own_files": {"model.onnx": DIGEST}}}, True),
        ({"export": {"own_files": {"model.onnx": DIGEST[::-1]}}}, False),
        ({"export": {"own_files": {"model.pt": DIGEST}}}, False),
        ({"export": {"own_files": None}}, False),
        ({"export": {"command": "import"}}, False),
        ({"export": "yes"}, False),
        ({}, False),
    ],
)
def test_what_our_own_writers_made_is_known_by_its_digest(
    source: dict[str, object], is_ours: bool, tmp_path: Path
) -> None:
    folder = unread_and_described(tmp_path, **source).folder
    assert ours(folder, "onnx_runtime") == is_ours
    assert needed(folder, ONNX) != is_ours
    assert not needed(folder, Candidate("fake", "cpu", 1))  # it runs in Python alone


def test_a_file_of_ours_that_was_changed_needs_a_trial(tmp_path: Path) -> None:
    folder = unread_and_described(tmp_path, export={"own_files": {"model.onnx": DIGEST}}).folder
    (folder.path / "model.onnx").write_bytes(b"another network")
    assert needed(folder, ONNX)
    (folder.path / "spec.json").write_text("{")
    assert needed(folder, ONNX)


def test_where_there_is_no_file_there_is_nothing_to_remember(request_: LoadRequest) -> None:
    assert key_of(request_, Candidate("torchscript", "cpu", 1)) is None
