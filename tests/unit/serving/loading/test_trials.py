"""Which versions are loaded on trial, what a trial may find, and what is known without one; no process is started here."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from serving.backends.base import Candidate, Measured
from serving.child.pipes import Message
from serving.errors import BackendUnavailable, ChildEnded, ChildRaised, ModelConfigError, RepositoryError
from serving.loading.order import ServerDefaults
from serving.loading.remembered import FOLDER
from serving.loading.request import LoadRequest, Tried
from serving.loading.trials import Trials, told, try_ahead
from serving.repository.folders import VersionFolder
from serving.repository.repositories import Repositories
from tests.support import fake_models
from tests.support.loading import UNREAD, request_of, unread, unread_and_described
from tests.support.running import until

ONNX = Candidate("onnx_runtime", "cpu", 1)
TORCH = Candidate("torchscript", "cpu", 1)
CRASHED = ChildEnded("its process ended with signal 11", crashed=True)


class Children:
    """Stands for the children of a server: answers as it is told, and counts."""

    def __init__(self, *answers: dict[str, Any] | Exception) -> None:
        self.answers = list(answers)
        self.asked: list[dict[str, Any]] = []
        self.started = 0
        self.alive = False

    def __call__(self) -> Any:
        self.started += 1
        self.alive = True
        return self

    def ask(self, header: dict[str, Any], **_: object) -> Message:
        self.asked.append(header)
        answer = self.answers.pop(0) if self.answers else {}
        if isinstance(answer, ChildEnded):
            self.alive = False
        if isinstance(answer, Exception):
            raise answer
        return Message(answer, {})

    def close(self) -> None:
        self.alive = False


@pytest.fixture(autouse=True)
def _cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


@pytest.fixture
def request_(tmp_path: Path) -> LoadRequest:
    return unread(tmp_path / "repository")


def trials(children: Children, when: str = "auto") -> Trials:
    return Trials(when, child=children)


def test_what_others_made_is_tried_once_and_remembered_by_every_server(request_: LoadRequest) -> None:
    children = Children()
    first = trials(children)
    assert first(request_, ONNX) == Tried()
    assert first(request_, ONNX) == Tried()
    assert trials(children)(request_, ONNX) == Tried()
    assert len(children.asked) == 1
    asked = children.asked[0]
    assert (asked["do"], asked["name"], asked["candidate"]["backend"]) == ("load", "bare", "onnx_runtime")
    first.close()
    assert not children.alive


def test_a_crash_lowers_the_optimisation_and_is_remembered_with_its_reason(request_: LoadRequest) -> None:
    children = Children(CRASHED)
    found = trials(children)(request_, ONNX)
    assert found.level == "extended"
    assert found.remark == "loaded at the level 'extended' of optimisation: at 'all' its process ended with signal 11"
    assert [asked["level"] for asked in children.asked] == ["all", "extended"]
    assert children.started == 2
    assert trials(children)(request_, ONNX) == found
    assert children.started == 2


def test_a_level_that_is_no_longer_known_is_tried_anew(request_: LoadRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    trials(Children(CRASHED))(request_, ONNX)
    monkeypatch.setattr("serving.backends.onnx_runtime.LEVELS", ("all", "some"))
    children = Children()
    assert trials(children)(request_, ONNX) == Tried()
    assert len(children.asked) == 1


def test_what_dies_at_every_level_is_refused_and_the_next_version_is_tried_in_a_new_child(
    request_: LoadRequest, tmp_path: Path
) -> None:
    children = Children(CRASHED, CRASHED, CRASHED)
    held = trials(children)
    with pytest.raises(RepositoryError) as refused:
        held(request_, ONNX)
    file = request_.folder.path / "model.onnx"
    assert str(refused.value).startswith(f"{file} kills onnx_runtime ")
    assert "signal 11, and so at every level of optimisation (all, extended, basic). Export it again" in str(
        refused.value
    )
    assert list(tmp_path.rglob("*.json")) == []
    other = tmp_path / "repository" / "bare" / "2"
    other.mkdir()
    (other / "model.onnx").write_bytes(b"another")
    assert held(dataclasses.replace(request_, folder=VersionFolder(2, other)), ONNX) == Tried()
    assert children.started == 4


def test_what_was_ended_for_its_time_or_memory_is_not_tried_at_lower_levels(request_: LoadRequest) -> None:
    children = Children(ChildEnded("its process said nothing for 120 s, and was ended"))
    with pytest.raises(RepositoryError, match=r"could not be loaded on trial in onnx_runtime .* --trial off"):
        trials(children)(request_, ONNX)
    assert len(children.asked) == 1


@pytest.mark.parametrize("error", [BackendUnavailable, RepositoryError, ModelConfigError])
def test_what_the_loader_refuses_there_is_refused_here(error: type[Exception], request_: LoadRequest) -> None:
    children = Children({"refused": error.__name__, "said": "no such thing"})
    with pytest.raises(error, match="no such thing"):
        trials(children)(request_, ONNX)
    assert children.started == 1  # it lives, and tries the next


def test_an_error_that_is_none_of_ours_is_left_to_the_load_and_not_remembered(request_: LoadRequest) -> None:
    children = Children(ChildRaised("OSError", "no space left"))
    held = trials(children)
    assert held(request_, ONNX) == Tried()
    assert held(request_, ONNX) == Tried()
    assert len(children.asked) == 2


def test_a_place_that_cannot_be_written_costs_a_trial_at_each_start_and_no_more(
    request_: LoadRequest, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (request_.folder.path.parent / FOLDER).write_text("")
    (tmp_path / "cache").write_text("")
    children = Children()
    first = trials(children)
    for _ in range(3):
        first(request_, ONNX)
    assert len(children.asked) == 1
    assert "every start tries it again" in caplog.text
    trials(children)(request_, ONNX)
    assert len(children.asked) == 2


def test_what_our_own_writers_made_is_tried_only_when_everything_is(tmp_path: Path) -> None:
    digest = hashlib.sha256(UNREAD).hexdigest()
    request = unread_and_described(tmp_path, export={"own_files": {"model.onnx": digest}})
    children = Children()
    trials(children)(request, ONNX)
    assert children.started == 0
    trials(children, "always")(request, ONNX)
    assert [asked["name"] for asked in children.asked] == ["described"]


def test_what_runs_in_python_alone_is_tried_only_when_everything_is(tmp_path: Path) -> None:
    fake_models.write(tmp_path / "r")
    request, fake = request_of(tmp_path / "r", "fake"), Candidate("fake", "cpu", 1)
    for when, asked in (("auto", 0), ("off", 0), ("always", 2)):
        children = Children()
        held = trials(children, when)
        for _ in range(2):
            assert held(request, fake) == Tried()
        assert len(children.asked) == asked


def test_off_starts_nothing_whatever_it_is(request_: LoadRequest) -> None:
    children = Children()
    assert trials(children, "off")(request_, ONNX) == Tried()
    assert children.started == 0


def test_nothing_is_tried_where_there_is_no_file(request_: LoadRequest) -> None:
    (request_.folder.path / "model.onnx").unlink()
    children = Children()
    assert trials(children)(request_, ONNX) == Tried()
    assert children.started == 0


def test_a_runtime_that_cannot_be_imported_meanwhile_is_left_to_the_load(
    request_: LoadRequest, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def broken() -> None:
        raise ImportError("libgomp.so.1 is missing")

    monkeypatch.setattr("serving.backends.onnx_runtime.bring_in", broken)
    caplog.set_level("INFO")
    assert trials(Children())(request_, ONNX) == Tried()
    until(lambda: "not imported ahead of its load: libgomp.so.1 is missing" in caplog.messages)


def ahead(held: Trials, request: LoadRequest, *names: str, leaving: bool = False) -> None:
    defaults = ServerDefaults(backend="onnx_runtime")
    there = Repositories([request.repository.path])
    try_ahead(held, there.holding, names, defaults, lambda folder, candidates: {}, lambda: leaving)


def test_a_trial_ahead_of_the_load_is_the_loads(request_: LoadRequest) -> None:
    children = Children(CRASHED)
    held = trials(children)
    ahead(held, request_, "missing", "bare")
    assert len(children.asked) == 2
    assert held(request_, ONNX).level == "extended"
    assert len(children.asked) == 2


def test_what_a_trial_ahead_of_the_load_refuses_the_load_says_once(request_: LoadRequest) -> None:
    children = Children(CRASHED, CRASHED, CRASHED)
    held = trials(children)
    ahead(held, request_, "bare")
    with pytest.raises(RepositoryError, match="kills onnx_runtime"):
        held(request_, ONNX)
    assert len(children.asked) == 3
    assert held(request_, ONNX) == Tried()  # loaded again, it is tried again
    assert len(children.asked) == 4


def test_what_a_load_has_been_refused_is_not_tried_ahead_of_it_any_more(request_: LoadRequest) -> None:
    """Where the load is faster than who tries ahead: a file that hangs would hold up all others for twice as long."""
    children = Children(ChildEnded("its process said nothing for 120 s"))
    held = trials(children)
    with pytest.raises(RepositoryError, match="said nothing for 120 s"):
        held(request_, ONNX)
    ahead(held, request_, "bare")
    assert len(children.asked) == 1
    assert held(request_, ONNX) == Tried(), "another load is another trial"


def test_nothing_is_tried_ahead_when_the_server_leaves(request_: LoadRequest) -> None:
    children = Children()
    ahead(trials(children), request_, "bare", leaving=True)
    assert children.started == 0


def test_what_is_tried_ahead_is_what_serves_by_what_is_known(request_: LoadRequest) -> None:
    """The very choice that the load will make: by rule, or by what was measured before."""
    root = request_.repository.path
    (unread_and_described(root).folder.path / "model.pt").write_bytes(UNREAD)
    figures = {ONNX: Measured(ONNX, {1: 1e-3}), TORCH: Measured(TORCH, {1: 1e-4})}
    holding = Repositories([root]).holding

    def nothing(*_: object) -> Mapping[Candidate, Measured]:
        return {}

    def measured(*_: object) -> Mapping[Candidate, Measured]:
        return figures

    for known, backend in ((nothing, "onnx_runtime"), (measured, "torchscript")):
        children = Children()
        try_ahead(trials(children), holding, ["described"], ServerDefaults(), known, lambda: False)
        assert [asked["candidate"]["backend"] for asked in children.asked] == [backend]


def test_what_people_are_told_of_a_trial(request_: LoadRequest) -> None:
    children = Children(CRASHED, CRASHED, CRASHED, CRASHED)
    assert told(trials(children), request_, ONNX).startswith("refused by its trial: ")
    assert not children.alive
    assert told(trials(children), request_, ONNX).startswith("loaded at the level 'extended' of optimisation")
    assert told(trials(Children(), "off"), request_, ONNX) == ""
