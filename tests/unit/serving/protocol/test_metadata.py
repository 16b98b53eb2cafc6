"""What a client may ask about the server and its models."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from protos import grpc_service_pb2 as pb
from serving.errors import InvalidRequest, NotReady, UnknownModel, UnknownVersion
from serving.lifecycle.manager import ModelManager
from serving.protocol.inference import Inference
from serving.protocol.metadata import EXTENSIONS, SERVER_NAME, Metadata
from serving.telemetry.ended import Recorder
from tests.support import fake_models
from tests.support.managed import install, managing
from tests.support.wire import request


@pytest.fixture
def metadata(tmp_path: Path) -> Iterator[Metadata]:
    """Of a server with versions 1 and 3 of the model `fake`."""
    fake_models.write(tmp_path)
    manager = managing(tmp_path)
    fake_models.write(tmp_path, version=3)
    install(manager, tmp_path)
    yield Metadata(manager, version="1.2.3")
    assert manager.close(10), "nobody keeps a lease"


def test_a_server_is_live_at_once_and_ready_when_the_first_load_is_over() -> None:
    manager = ModelManager()
    metadata = Metadata(manager, version="1.2.3")
    assert metadata.server_live(pb.ServerLiveRequest()).live
    assert not metadata.server_ready(pb.ServerReadyRequest()).ready
    assert not metadata.ready
    manager.started()
    assert metadata.server_ready(pb.ServerReadyRequest()).ready
    assert metadata.ready


def test_a_server_that_leaves_is_neither_live_nor_ready(metadata: Metadata) -> None:
    metadata.exiting = True
    assert not metadata.ready
    assert not metadata.model_ready(pb.ModelReadyRequest(name="fake")).ready
    for ask in (
        lambda: metadata.server_live(pb.ServerLiveRequest()),
        lambda: metadata.server_ready(pb.ServerReadyRequest()),
        metadata.refuse_when_exiting,
    ):
        with pytest.raises(NotReady, match="Server exiting"):
            ask()


@pytest.mark.parametrize(
    ("name", "version", "ready"),
    [("fake", "", True), ("fake", "1", True), ("fake", "3", True), ("fake", "2", False), ("nobody", "", False)],
)
def test_a_model_is_ready_if_it_could_be_asked(metadata: Metadata, name: str, version: str, ready: bool) -> None:
    assert metadata.model_ready(pb.ModelReadyRequest(name=name, version=version)).ready == ready


def test_a_version_that_is_no_number_is_refused_rather_than_not_ready(metadata: Metadata) -> None:
    with pytest.raises(InvalidRequest, match="specified version string 'latest'"):
        metadata.model_ready(pb.ModelReadyRequest(name="fake", version="latest"))


def test_the_server_says_what_it_is(metadata: Metadata) -> None:
    told = metadata.server_metadata(pb.ServerMetadataRequest())
    assert (told.name, told.version, tuple(told.extensions)) == (SERVER_NAME, "1.2.3", EXTENSIONS)


def test_a_model_shows_what_a_client_must_send_and_gets(metadata: Metadata) -> None:
    """Lengths and state are left out, since the server knows what to put there."""
    told = metadata.model_metadata(pb.ModelMetadataRequest(name="fake", version="1"))
    assert (told.name, told.platform, list(told.versions)) == ("fake", "fake", ["1", "3"])
    shown = [(each.name, each.datatype, list(each.shape)) for each in (*told.inputs, *told.outputs)]
    assert shown == [("x", "FP32", [-1, -1, fake_models.FEATURES]), ("y", "FP32", [-1, 2])]


def test_a_model_shows_the_configuration_in_force(metadata: Metadata) -> None:
    config = metadata.model_config(pb.ModelConfigRequest(name="fake")).config
    assert (config.name, config.backend, [each.name for each in config.input]) == ("fake", "fake", ["x"])
    assert config.max_batch_size > 0


Ask = Callable[[Metadata, str, str], object]
ASKS: list[Ask] = [
    lambda metadata, name, version: metadata.model_metadata(pb.ModelMetadataRequest(name=name, version=version)),
    lambda metadata, name, version: metadata.model_config(pb.ModelConfigRequest(name=name, version=version)),
]


@pytest.mark.parametrize("ask", ASKS, ids=["metadata", "config"])
def test_what_is_not_there_shows_nothing(metadata: Metadata, ask: Ask) -> None:
    with pytest.raises(UnknownModel, match="'nobody' is not found"):
        ask(metadata, "nobody", "")
    with pytest.raises(UnknownVersion, match="'fake' version 2 is not found"):
        ask(metadata, "fake", "2")


@pytest.mark.parametrize(
    ("name", "version", "shown"),
    [
        ("", "", ["fake/1", "fake/3"]),
        ("fake", "", ["fake/1", "fake/3"]),
        ("fake", "3", ["fake/3"]),
        ("fake", "03", ["fake/3"]),
        ("", "1", ["fake/1"]),
        ("", "2", []),
    ],
)
def test_statistics_are_of_what_was_asked_for(metadata: Metadata, name: str, version: str, shown: list[str]) -> None:
    told = metadata.model_statistics(pb.ModelStatisticsRequest(name=name, version=version)).model_stats
    assert [f"{each.name}/{each.version}" for each in told] == shown


@pytest.mark.parametrize(
    ("name", "version", "said"),
    [
        ("nobody", "", "requested model 'nobody' is not available"),
        ("fake", "2", "requested model version is not available for model 'fake'"),
    ],
)
def test_statistics_of_what_is_not_there_are_refused(metadata: Metadata, name: str, version: str, said: str) -> None:
    with pytest.raises(InvalidRequest, match=said):
        metadata.model_statistics(pb.ModelStatisticsRequest(name=name, version=version))


def test_statistics_show_what_was_refused(tmp_path: Path) -> None:
    fake_models.write(tmp_path)
    manager = managing(tmp_path)
    inference = Inference(manager, Recorder(), max_steps=1)
    for _ in range(2):
        inference.infer_all([(request("fake", 1.0, 2).SerializeToString(), Unanswered())])
    (told,) = Metadata(manager, version="").model_statistics(pb.ModelStatisticsRequest(name="fake")).model_stats
    assert (told.inference_stats.fail.count, told.inference_stats.success.count) == (2, 0)
    assert manager.close(10)


class Unanswered:
    """A call that nobody waits for."""

    received_ns, deadline_ns, caller, on_stream, gone = 0, None, "", 0, False

    def reply(self, payload: bytes) -> None:
        raise AssertionError("it was to be refused")

    @staticmethod
    def reply_all(answers: object) -> None:
        raise AssertionError("it was to be refused")

    def fail(self, code: object, message: str, retry_ms: int = 0) -> None:
        pass

    def on_cancel(self, action: object) -> None:
        pass
