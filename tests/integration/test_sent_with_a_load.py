"""What a client sends along with a load: another configuration, or the whole model."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.protobuf import json_format

from protos import grpc_service_pb2 as pb
from serving.launch import LaunchedServer
from tests.support import fake_models
from tests.support.running import EVERYTHING, until
from tests.support.wire import RawClient, refusal

CODE = grpc.StatusCode


@pytest.mark.parametrize("name", ["onnx_runtime", "onnxruntime", "onnxruntime_onnx"])
def test_the_backend_is_told_in_tritons_words_whatever_it_was_asked_for_by(name: str, repository: Path) -> None:
    with LaunchedServer(repository, *EVERYTHING) as server, RawClient(server.address) as client:
        assert client.call("ModelMetadata", name="fake").platform == "fake"
        client.load("fake", json.dumps({"backend": name}))
        config = client.call("ModelConfig", name="fake").config
        assert (config.backend, config.platform) == ("onnxruntime", "onnxruntime_onnx")
        assert config.default_model_filename == "model.onnx"
        assert client.call("ModelMetadata", name="fake").platform == "onnxruntime_onnx"
        assert client.infer().tolist() == [6, 6]


def test_a_configuration_in_part_is_completed(repository: Path) -> None:
    (repository / "fake" / "config.pbtxt").write_text("max_batch_size: 8 dynamic_batching {}")
    with LaunchedServer(repository, *EVERYTHING) as server, RawClient(server.address) as client:

        def config() -> Any:
            return client.call("ModelConfig", name="fake").config

        before = config()
        assert before.max_batch_size == 8
        client.load("fake", '{"instance_group": [{"count": 3}]}')
        changed = config()
        assert [(group.count, group.name) for group in changed.instance_group] == [(3, "fake_0")]
        assert changed.max_batch_size == 64, "what is sent replaces the file as a whole"
        assert (changed.input, changed.output) == (before.input, before.output)
        client.load("fake", '{"backend": "onnxruntime"}')
        assert (config().backend, config().instance_group[0].count) == ("onnxruntime", 1)
        client.load("fake")
        assert config() == before


def test_what_is_shown_can_be_sent_back(repository: Path) -> None:
    (repository / "fake" / "config.pbtxt").write_text(
        'max_batch_size: 16 dynamic_batching { preferred_batch_size: [ 4 ] max_queue_delay_microseconds: 5 } backend: "fake" '
        'instance_group { count: 2 } parameters { key: "version_labels" value { string_value: "stable=1" } }'
    )
    with LaunchedServer(repository, *EVERYTHING) as server, RawClient(server.address) as client:
        shown = client.call("ModelConfig", name="fake").config
        for form in (
            json_format.MessageToJson(shown),
            json_format.MessageToJson(shown, preserving_proto_field_name=True),
        ):
            client.load("fake", form)
            assert client.call("ModelConfig", name="fake").config == shown
        assert client.version("fake", "stable") == "1"


def test_files_that_are_sent_replace_the_model(repository: Path, tmp_path: Path) -> None:
    """They lie in a folder of their own while they are served, and no longer."""
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    version = fake_models.write(tmp_path / "made", "fake")
    files = {f"4/{path.name}": path.read_bytes() for path in version.iterdir()}
    with (
        LaunchedServer(repository, *EVERYTHING, environment=os.environ | {"TMPDIR": str(temporary)}) as server,
        RawClient(server.address) as client,
    ):
        assert client.version("fake") == "1"
        client.load("fake", "{}", files)
        assert client.version("fake") == "4"
        until(lambda: "fake/1" not in client.index())
        assert len(list(temporary.iterdir())) == 1
        code, said = refusal(lambda: client.load("fake", "{}", {"4/model.fake.json": b"{"}))
        assert code is CODE.INVALID_ARGUMENT
        assert "load failed for model 'fake': version 4: " in said
        assert client.version("fake") == "4"
        assert len(list(temporary.iterdir())) == 1, "the folder of what was refused is still there"
        client.unload("fake")
        until(lambda: list(temporary.iterdir()) == [])
        client.load("new", "{}", {path.replace("4/", "1/"): content for path, content in files.items()})
        assert client.infer("new").tolist() == [6, 6]
        client.load("fake")
        assert client.version("fake") == "1"
        assert server.stop() == 0
    assert list(temporary.iterdir()) == []


def test_nothing_that_was_sent_is_left_when_the_server_leaves_during_a_load(repository: Path, tmp_path: Path) -> None:
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    made = {path.name: path.read_bytes() for path in (repository / "fake" / "1").iterdir()}
    slow = made | {"model.fake.json": b'{"delay_seconds": 60}'}
    with (
        LaunchedServer(repository, *EVERYTHING, environment=os.environ | {"TMPDIR": str(temporary)}) as server,
        RawClient(server.address) as client,
    ):
        client.load("quick", "{}", {f"1/{name}": content for name, content in made.items()})
        files = {f"file:1/{name}": pb.ModelRepositoryParameter(bytes_param=content) for name, content in slow.items()}
        sent = {"config": pb.ModelRepositoryParameter(string_param="{}"), **files}
        load = client.method("RepositoryModelLoad")
        answer = load.future(pb.RepositoryModelLoadRequest(model_name="slow", parameters=sent), timeout=60)
        until(lambda: client.index().get("slow/1", ("", ""))[0] == "LOADING")
        assert len(list(temporary.iterdir())) == 2
        assert server.stop() == 0
        assert answer.code() is CODE.UNAVAILABLE
    assert list(temporary.iterdir()) == []


def test_what_a_killed_server_has_left_is_removed_by_the_next_and_what_another_uses_is_not(
    repository: Path, tmp_path: Path
) -> None:
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    folder = repository / "fake" / "1"
    sent = {f"1/{path.name}": path.read_bytes() for path in folder.iterdir() if path.is_file()}
    environment = {**os.environ, "TMPDIR": str(temporary)}
    with LaunchedServer(repository, *EVERYTHING, environment=environment) as living:
        with RawClient(living.address) as client:
            client.load("mine", "{}", sent)
        with LaunchedServer(repository, *EVERYTHING, environment=environment) as killed:
            with RawClient(killed.address) as client:
                client.load("mine", "{}", sent)
            used = set(temporary.iterdir())
            assert len(used) == 2
            killed.process.kill()
            killed.process.wait()
        with LaunchedServer(repository, *EVERYTHING, environment=environment):
            (left,) = temporary.iterdir()
        with RawClient(living.address) as client:
            assert client.infer("mine").tolist() == [6, 6]
            assert left in used
    assert list(temporary.iterdir()) == []
