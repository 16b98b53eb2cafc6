"""The model repository extension, as clients ask; what is done then is `serving.lifecycle.control`'s."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, cast

import pytest

from protos import grpc_service_pb2 as pb
from serving.errors import InvalidRequest, LoadFailed, NotImplementedHere, NotReady
from serving.lifecycle.control import RepositoryControl
from serving.lifecycle.manager import ModelManager
from serving.lifecycle.statuses import VersionStatus
from serving.protocol.control import Control
from serving.protocol.metadata import Metadata

INDEX = [
    VersionStatus(name="a", version="1", state="READY"),
    VersionStatus(name="a", version="2", state="UNAVAILABLE", reason="it is damaged"),
    VersionStatus(name="b"),
]


class Asked:
    """What is in the repository, and what was asked for."""

    def __init__(self) -> None:
        self.calls: list[tuple[Any, ...]] = []

    def index(self) -> list[VersionStatus]:
        return INDEX

    def load(self, name: str, config: str | None, files: Mapping[str, bytes]) -> None:
        self.calls.append(("load", name, config, files))
        if name == "damaged":
            raise LoadFailed("load failed for model 'damaged'")

    def unload(self, name: str) -> None:
        self.calls.append(("unload", name))


class Stage:
    def __init__(self) -> None:
        self.asked = Asked()
        self.metadata = Metadata(ModelManager(), version="")
        self.control = Control(cast(RepositoryControl, self.asked), self.metadata)


def test_the_index_has_every_version_and_its_reason() -> None:
    told = Stage().control.repository_index(pb.RepositoryIndexRequest()).models
    assert [(each.name, each.version, each.state, each.reason) for each in told] == [
        ("a", "1", "READY", ""),
        ("a", "2", "UNAVAILABLE", "it is damaged"),
        ("b", "", "", ""),
    ]


def test_the_index_has_what_is_ready_alone_if_that_is_asked_for() -> None:
    told = Stage().control.repository_index(pb.RepositoryIndexRequest(ready=True)).models
    assert [(each.name, each.version) for each in told] == [("a", "1")]


def test_a_load_hands_on_what_came_with_it() -> None:
    stage = Stage()
    stage.control.repository_model_load(pb.RepositoryModelLoadRequest(model_name="a"))
    sent = pb.RepositoryModelLoadRequest(model_name="b")
    sent.parameters["config"].string_param = "{}"
    sent.parameters["file:1/model.onnx"].bytes_param = b"onnx"
    stage.control.repository_model_load(sent)
    assert stage.asked.calls == [("load", "a", None, {}), ("load", "b", "{}", {"1/model.onnx": b"onnx"})]


def test_a_load_that_fails_says_so() -> None:
    with pytest.raises(LoadFailed, match="'damaged'"):
        Stage().control.repository_model_load(pb.RepositoryModelLoadRequest(model_name="damaged"))


def test_a_load_with_parameters_that_make_no_sense_loads_nothing() -> None:
    stage, sent = Stage(), pb.RepositoryModelLoadRequest(model_name="a")
    sent.parameters["file:1/model.onnx"].bytes_param = b"onnx"
    with pytest.raises(InvalidRequest, match="'config' must be sent along with files"):
        stage.control.repository_model_load(sent)
    assert stage.asked.calls == []


@pytest.mark.parametrize("dependents", [None, True, False])
def test_an_unload_may_say_what_of_dependents(dependents: bool | None) -> None:
    stage, sent = Stage(), pb.RepositoryModelUnloadRequest(model_name="a")
    if dependents is not None:
        sent.parameters["unload_dependents"].bool_param = dependents
    stage.control.repository_model_unload(sent)
    assert stage.asked.calls == [("unload", "a")]


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("unload_dependents", pb.ModelRepositoryParameter(string_param="true")),
        ("unload_dependents", pb.ModelRepositoryParameter()),
        ("force", pb.ModelRepositoryParameter(bool_param=True)),
    ],
)
def test_an_unload_with_anything_else_unloads_nothing(name: str, value: pb.ModelRepositoryParameter) -> None:
    stage = Stage()
    with pytest.raises(InvalidRequest, match=f"unrecognized unload parameter '{name}'; known is unload_dependents"):
        stage.control.repository_model_unload(pb.RepositoryModelUnloadRequest(model_name="a", parameters={name: value}))
    assert stage.asked.calls == []


Ask = Callable[[Control, str], object]
ASKS: Mapping[str, Ask] = {
    "index": lambda control, repository: control.repository_index(
        pb.RepositoryIndexRequest(repository_name=repository)
    ),
    "load": lambda control, repository: control.repository_model_load(
        pb.RepositoryModelLoadRequest(repository_name=repository, model_name="a")
    ),
    "unload": lambda control, repository: control.repository_model_unload(
        pb.RepositoryModelUnloadRequest(repository_name=repository, model_name="a")
    ),
}


@pytest.mark.parametrize("ask", ASKS)
def test_there_is_one_repository_and_it_has_no_name(ask: str) -> None:
    stage = Stage()
    with pytest.raises(NotImplementedHere, match="'repository_name' specification is not supported"):
        ASKS[ask](stage.control, "another")
    assert stage.asked.calls == []


@pytest.mark.parametrize("ask", ["load", "unload"])
def test_a_server_that_leaves_loads_and_unloads_nothing(ask: str) -> None:
    stage = Stage()
    stage.metadata.exiting = True
    with pytest.raises(NotReady, match="Server exiting"):
        ASKS[ask](stage.control, "")
    assert stage.asked.calls == []
    ASKS["index"](stage.control, "")
