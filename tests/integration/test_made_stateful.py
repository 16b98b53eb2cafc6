"""Models that are made stateful by a flag of the server, by their configuration, and by one that a client sends."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.protobuf import json_format

from serving.launch import LaunchedServer
from tests.support import fake_models
from tests.support.running import FAKE
from tests.support.wire import RawClient, refusal

LONG = 3_600_000_000
UNSTREAMABLE = "sequence_batching: the model cannot be stateful: fed in pieces"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, edge: str) -> Iterator[LaunchedServer]:
    repository = tmp_path_factory.mktemp("repository")
    fake_models.write(repository, "flagged")
    fake_models.write(repository, "asked")
    write_whole(repository)
    flags = ("--stateful", "flagged,flaged", "--model-control-mode", "explicit", "--load-model", "*")
    with LaunchedServer(repository, *FAKE, *flags) as running:
        yield running


def write_whole(repository: Path) -> None:
    """A model that was not proved to be streamable."""
    spec = json.loads(fake_models.spec().to_json()) | {"streamable": False}
    (fake_models.write(repository, "whole") / "spec.json").write_text(json.dumps(spec))


def in_force(client: RawClient, name: str) -> Any:
    return client.call("ModelConfig", name=name).config


def test_by_a_flag_of_the_server(server: LaunchedServer) -> None:
    with RawClient(server.address) as client:
        config = in_force(client, "flagged")
        assert [state.input_name for state in config.sequence_batching.state] == ["h0", "c0"]
        assert in_force(client, "asked").HasField("dynamic_batching")
    (warned,) = [line["message"] for line in server.log() if "makes nothing stateful yet" in line["message"]]
    assert warned.endswith("did you mean 'flagged'?")


def test_by_a_configuration_that_is_sent_and_with_one(server: LaunchedServer) -> None:
    with RawClient(server.address) as client:
        client.load("flagged", json.dumps({"max_batch_size": 4}))
        config = in_force(client, "flagged")
        assert (config.max_batch_size, config.HasField("sequence_batching")) == (4, True)
        client.load("asked", json.dumps({"sequence_batching": {"max_sequence_idle_microseconds": LONG}}))
        config = in_force(client, "asked")
        assert config.sequence_batching.max_sequence_idle_microseconds == LONG
        client.load("asked", json_format.MessageToJson(config))
        assert in_force(client, "asked") == config
        client.load("asked")
        assert not in_force(client, "asked").HasField("sequence_batching")


def test_one_that_cannot_be_serves_on_as_it_was(server: LaunchedServer) -> None:
    with RawClient(server.address) as client:
        code, said = refusal(lambda: client.load("whole", json.dumps({"sequence_batching": {}})))
        assert code is grpc.StatusCode.INVALID_ARGUMENT
        assert UNSTREAMABLE in said
        assert client.infer("whole").shape == (2,)
