"""Loading and unloading by RPC: who may, what is refused and how, and what a client reads of it afterwards."""

from __future__ import annotations

import json
import shutil
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest

from protos import grpc_service_pb2 as pb
from serving.launch import LaunchedServer
from tests.support import fake_models
from tests.support.running import EVERYTHING, EXPLICIT, logged, metric, until
from tests.support.wire import RawClient, refusal

CODE = grpc.StatusCode


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory, edge: str) -> Iterator[LaunchedServer]:
    """A server in explicit mode for tests that leave it as it was."""
    folder = tmp_path_factory.mktemp("repository")
    fake_models.write(folder)
    with LaunchedServer(folder, *EVERYTHING) as running:
        yield running


@pytest.mark.parametrize("mode", ["none", "poll"])
def test_clients_load_nothing_unless_the_mode_is_explicit(mode: str, repository: Path) -> None:
    flags = ("--backend", "fake", "--model-control-mode", mode)
    with LaunchedServer(repository, *flags) as server, RawClient(server.address) as client:
        for ask in (lambda: client.load("fake"), lambda: client.unload("fake"), lambda: client.load("nobody")):
            code, said = refusal(ask)
            assert code is CODE.UNAVAILABLE
            assert said.startswith("explicit model load / unload is not allowed if polling is enabled")
            assert f"--model-control-mode {mode}" in said
        assert client.infer().tolist() == [6, 6]


@pytest.mark.parametrize(
    ("flags", "loaded"),
    [
        ((), []),
        (("--load-model", "other"), ["other"]),
        (("--load-model", "other,fake"), ["fake", "other"]),
        (("--load-model", "other", "--load-model", "fake"), ["fake", "other"]),
        (("--load-model", "*"), ["fake", "other"]),
    ],
)
def test_what_is_loaded_at_start(flags: tuple[str, ...], loaded: list[str], repository: Path) -> None:
    with LaunchedServer(repository, *EXPLICIT, *flags) as server, RawClient(server.address) as client:
        assert client.call("ServerReady").ready
        assert [entry.name for entry in client.call("RepositoryIndex", ready=True).models] == loaded
        never = {f"{name}/": ("", "") for name in ("fake", "other") if name not in loaded}  # known by name alone
        assert client.index() == {f"{name}/1": ("READY", "") for name in loaded} | never


def test_a_model_named_at_start_that_is_not_there_keeps_the_server_from_being_ready(repository: Path) -> None:
    flags = (*EXPLICIT, "--load-model", "nobody,fake")
    with LaunchedServer(repository, *flags) as server, RawClient(server.address) as client:
        assert not client.call("ServerReady").ready
        assert "failed to poll from model repository" in client.index()["nobody/"][1]
        assert client.infer().tolist() == [6, 6]


def test_loading_and_unloading_as_a_client_sees_it(repository: Path) -> None:
    with LaunchedServer(repository, *EXPLICIT) as server, RawClient(server.address) as client:
        code, said = refusal(client.infer)
        assert (code, said) == (CODE.INVALID_ARGUMENT, "Request for unknown model: 'fake' is not found")
        client.load("fake")
        assert client.infer().tolist() == [6, 6]
        client.unload("fake")
        until(lambda: client.index()["fake/1"] == ("UNAVAILABLE", "unloaded"))
        code, said = refusal(client.infer)
        assert code is CODE.NOT_FOUND
        assert said.startswith("Request for unknown model: 'fake' has no available versions")
        assert not client.call("ModelReady", name="fake").ready
        assert client.call("ServerReady").ready
        client.load("fake")
        assert client.infer().tolist() == [6, 6]


def test_the_same_load_twice_does_nothing(repository: Path) -> None:
    with LaunchedServer(repository, *EVERYTHING) as server, RawClient(server.address) as client:
        client.infer()
        for _ in range(3):
            client.load("fake")
        for _ in range(3):
            client.load("fake", '{"backend": "onnxruntime"}')
        assert server.stop() == 0
        loads = [(entry["model"], entry["backend"]) for entry in server.log() if entry["message"] == "loaded"]
        assert sorted(loads[:2]) == [("fake", "fake"), ("other", "fake")]  # side by side
        assert loads[2:] == [("fake", "onnx_runtime")]


def test_a_model_that_the_repository_lacks(shared: LaunchedServer) -> None:
    """Nothing is remembered of it: a client that mistypes a name does not take the server out of service."""
    with RawClient(shared.address) as client:
        known = client.index()
        for config in (None, "{}"):
            answer = refusal(lambda: client.load("nobody", config))  # noqa: B023 - called at once
            assert answer == (CODE.INTERNAL, "failed to load 'nobody', failed to poll from model repository")
        assert client.call("ServerReady").ready
        assert client.index() == known
        client.unload("nobody")  # is all right: it is not loaded afterwards
        assert client.index() == known


def test_a_repository_that_has_gone(repository: Path) -> None:
    with LaunchedServer(repository, *EVERYTHING) as server, RawClient(server.address) as client:
        repository.rename(repository.with_name("elsewhere"))
        code, said = refusal(lambda: client.load("unknown"))
        assert code is CODE.INTERNAL
        assert said.startswith("failed to load 'unknown', failed to poll from model repository: [Errno 2]")
        assert client.infer().tolist() == [6, 6]
        assert logged(server, "a fault of the server") == 0


def test_a_model_that_has_gone_from_the_repository_serves_until_it_is_unloaded(repository: Path) -> None:
    with LaunchedServer(repository, *EVERYTHING) as server, RawClient(server.address) as client:
        (repository / "fake").rename(repository.parent / "away")
        code, said = refusal(lambda: client.load("fake"))
        assert (code, said) == (CODE.INTERNAL, "failed to load 'fake', failed to poll from model repository")
        assert client.infer().tolist() == [6, 6]
        assert client.index()["fake/1"] == ("READY", f"not replaced: {said}")
        assert client.call("ServerReady").ready
        client.unload("fake")
        until(lambda: client.index()["fake/1"] == ("UNAVAILABLE", "unloaded"))


CONFIG = pb.ModelRepositoryParameter(string_param="{}")
CONTENT = pb.ModelRepositoryParameter(bytes_param=b"x")
BAD_PARAMETERS = {
    "unknown": ({"colour": CONFIG}, "unrecognized load parameter 'colour'"),
    "config-as-bytes": ({"config": CONTENT}, "'config', expected string_param"),
    "config-of-no-kind": ({"config": pb.ModelRepositoryParameter()}, "'config', expected string_param"),
    "file-as-text": ({"config": CONFIG, "file:1/a": CONFIG}, "'file:1/a', expected bytes_param"),
    "file-without-config": ({"file:1/a": CONTENT}, "'config' must be sent along with files"),
}
BAD_PATHS = ("", "1", "1/", "/1/a", "0/a", "01/a", "x/a", "-1/a", "1/../a", "1/../../a", "../1/a", "1//a", "1/./a")
BAD_PARAMETERS |= {
    f"file-at-{path or 'nowhere'}": ({"config": CONFIG, f"file:{path}": CONTENT}, "names no file of a version")
    for path in (*BAD_PATHS, "1/a\0", "1/a\\b", "config.pbtxt", "²/a")
}


@pytest.mark.parametrize(("sent", "message"), BAD_PARAMETERS.values(), ids=list(BAD_PARAMETERS))
def test_parameters_that_are_refused(sent: dict[str, Any], message: str, shared: LaunchedServer) -> None:
    with RawClient(shared.address) as client:
        known = client.index()
        code, said = refusal(lambda: client.call("RepositoryModelLoad", model_name="fake", parameters=sent))
        assert code is CODE.INVALID_ARGUMENT
        assert message in said
        assert client.index() == known


BAD_CONFIGS = {
    "": "does not parse",
    "{": "does not parse",
    "[]": "must be a JSON object",
    '{"colour": 1}': "colour",
    '{"max_batch_size": "many"}': "does not parse",
    '{"backend": "cobol"}': "backend is 'cobol', which this server does not have; known are",
    '{"name": "other"}': "name is 'other', but the folder is called 'fake'",
    '{"backend": "pytorch"}': "torchscript was asked for, but the version has no model.pt",
    '{"ensemble_scheduling": {}}': "'ensemble_scheduling' is not served",
    "[" * 5000: "does not parse",
    json.dumps({"a" * 9_000_000: 1}): "does not parse",
}


@pytest.mark.parametrize(("config", "message"), BAD_CONFIGS.items(), ids=[text[:20] for text in BAD_CONFIGS])
def test_a_configuration_that_is_refused_leaves_what_serves(config: str, message: str, shared: LaunchedServer) -> None:
    with RawClient(shared.address) as client:
        code, said = refusal(lambda: client.load("fake", config))
        assert code is CODE.INVALID_ARGUMENT
        assert said.startswith("load failed for model 'fake': ")
        assert message in said
        assert client.infer().tolist() == [6, 6]
        assert client.call("ServerReady").ready
        state, reason = client.index()["fake/1"]
        assert state == "READY"
        assert reason.startswith("not replaced: ")
        client.load("fake")
        assert client.index()["fake/1"] == ("READY", "")


@pytest.mark.parametrize("name", ["", ".", "..", "../fake", "/etc", "fake/1", "fake/", ".hidden", "fa\nke"])
def test_names_that_are_none(name: str, shared: LaunchedServer) -> None:
    with RawClient(shared.address) as client:
        for ask in (lambda: client.load(name), lambda: client.unload(name), lambda: client.load(name, "{}")):
            code, said = refusal(ask)
            assert code is CODE.INVALID_ARGUMENT
            assert "a name is that of a folder in the repository" in said


def test_unloading_takes_unload_dependents_and_nothing_else(shared: LaunchedServer) -> None:
    unload = {"model_name": "nobody"}
    with RawClient(shared.address) as client:
        for value in (True, False):
            parameter = pb.ModelRepositoryParameter(bool_param=value)
            client.call("RepositoryModelUnload", **unload, parameters={"unload_dependents": parameter})
        for sent in ({"unload_dependents": CONFIG}, {"config": CONFIG}):
            code, said = refusal(lambda: client.call("RepositoryModelUnload", **unload, parameters=sent))  # noqa: B023
            assert code is CODE.INVALID_ARGUMENT
            assert "known is unload_dependents" in said
        for rpc in ("RepositoryModelLoad", "RepositoryModelUnload"):
            code, _ = refusal(lambda: client.call(rpc, repository_name="elsewhere", model_name="fake"))  # noqa: B023
            assert code is CODE.UNIMPLEMENTED


def test_what_is_in_flight_is_answered_after_the_unload(tmp_path: Path) -> None:
    fake_models.write(tmp_path, delay_seconds=2, delay_on=7)
    with LaunchedServer(tmp_path, *EVERYTHING) as server, RawClient(server.address) as client:
        answers = [client.infer_later(value=7) for _ in range(5)]
        until(lambda: metric(server, "requests_in_flight") == 5)
        client.unload("fake")
        assert not all(answer.done() for answer in answers)
        assert client.index()["fake/1"][0] == "UNLOADING"
        client.unload("fake")
        assert client.index()["fake/1"][0] == "UNLOADING", "it is not unloaded by being told so twice"
        assert refusal(client.infer)[0] is CODE.NOT_FOUND
        assert client.call("ServerReady").ready
        for answer in answers:
            assert answer.result().raw_output_contents
        until(lambda: client.index()["fake/1"] == ("UNAVAILABLE", "unloaded"))


def test_models_load_beside_each_other(tmp_path: Path) -> None:
    """A slow load holds up neither requests nor other loads, and who loads the same model again finds it loaded."""
    fake_models.write(tmp_path)
    answers: list[object] = []
    with LaunchedServer(tmp_path, *EVERYTHING) as server, RawClient(server.address) as client:
        fake_models.write(tmp_path, "slow", delay_seconds=0.2)
        fake_models.write(tmp_path, "quick")
        threads = [threading.Thread(target=lambda: answers.append(client.load("slow"))) for _ in range(3)]
        for thread in threads:
            thread.start()
        until(lambda: client.index().get("slow/1", ("", ""))[0] == "LOADING")
        client.load("quick")
        assert client.infer("quick").tolist() == [6, 6]
        assert refusal(lambda: client.infer("slow"))[0] is CODE.NOT_FOUND
        for thread in threads:
            thread.join()
        assert answers == [None] * 3
        assert client.infer("slow").tolist() == [6, 6]
        assert server.stop() == 0
        loads = [entry["model"] for entry in server.log() if entry["message"] == "loaded"]
        assert sorted(loads) == ["fake", "quick", "slow"]


def test_a_name_that_two_repositories_have_can_be_loaded_from_neither(repository: Path, tmp_path: Path) -> None:
    second = tmp_path / "second"
    fake_models.write(second, "fake")
    fake_models.write(second, "third")
    flags = (*EXPLICIT, "--load-model", "third", "--model-repository", str(second))
    with LaunchedServer(repository, *flags) as server, RawClient(server.address) as client:
        twice = ("UNAVAILABLE", "model appears in two or more repositories")
        assert client.index() == {"fake/": twice, "other/": ("", ""), "third/1": ("READY", "")}
        code, said = refusal(lambda: client.load("fake"))
        assert code is CODE.INVALID_ARGUMENT
        assert "failed to load 'fake', failed to poll from model repository: model appears in two or more" in said
        assert f"{repository / 'fake'} and {second / 'fake'}" in said
        client.load("other")
        shutil.rmtree(second / "fake")
        client.load("fake")
        assert [client.infer(name).tolist() for name in ("fake", "other", "third")] == [[6, 6]] * 3
