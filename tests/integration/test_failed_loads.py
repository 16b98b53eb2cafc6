"""A load that fails takes nothing away: what served before serves on, everybody learns why, and the mended one is taken."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import grpc
import numpy as np
import pytest
from prometheus_client.parser import text_string_to_metric_families

from serving.launch import LaunchedServer
from serving.verification import golden
from tests.support import fake_models
from tests.support.closed_loop import ClosedLoop
from tests.support.fake_models import published
from tests.support.running import EVERYTHING, POLL, logged, until
from tests.support.wire import RawClient, refusal

MODES = {"explicit": EVERYTHING, "poll": POLL}


def failed_loads(server: LaunchedServer) -> dict[tuple[str, str], float]:
    """The counts of failed loads of the model `fake`, by version and reason."""
    return {
        (sample.labels["version"], sample.labels["reason"]): sample.value
        for family in text_string_to_metric_families(server.metrics())
        for sample in family.samples
        if sample.name == "lstm_serving_model_load_failures_total" and sample.labels["model"] == "fake" and sample.value
    }


def _corrupt(version: Path) -> None:
    (version / "model.fake.json").write_text("{")


def _disagreeing(version: Path) -> None:
    path = version / golden.FILE_NAME
    samples = golden.read_samples(path)
    shifted = {name: array + np.float32(0.5) for name, array in samples[0].outputs.items()}
    golden.write_samples(path, [golden.Sample(samples[0].inputs, shifted)])


def _without_specification(version: Path) -> None:
    (version / "spec.json").unlink()


FAULTS = {
    _corrupt: ("model.fake.json is not a usable fake model", "repository"),
    _disagreeing: ("version 2 in fake on cpu: y differs from the trained model by", "verification"),
    _without_specification: ("spec.json is missing: the version is incomplete", "repository"),
}


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    published(folder := tmp_path / "repository", 1)
    return folder


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize(("fault", "told"), FAULTS.items(), ids=[fault.__name__[1:] for fault in FAULTS])
def test_a_new_version_that_cannot_be_loaded(fault: object, told: tuple[str, str], mode: str, repository: Path) -> None:
    reason, kind = told
    with (
        LaunchedServer(repository, *MODES[mode]) as server,
        RawClient(server.address) as client,
        ClosedLoop(server.address, clients=2) as loop,
    ):
        published(repository, 2, fault)
        if mode == "explicit":
            code, said = refusal(lambda: client.load("fake"))
            assert code is grpc.StatusCode.INVALID_ARGUMENT
            assert said.startswith("load failed for model 'fake': version 2: ")
            assert reason in said
        until(lambda: client.index().get("fake/2", ("",))[0] == "UNAVAILABLE")
        assert reason in client.index()["fake/2"][1]
        assert client.index()["fake/1"] == ("READY", "")
        assert failed_loads(server) == {("2", kind): 1}
        until(lambda: logged(server, reason) > 0)
        loop.more()
        assert client.version("fake") == "1"
        assert client.call("ServerReady").ready
        published(repository, 2)
        if mode == "explicit":
            client.load("fake")
        until(lambda: client.index() == {"fake/2": ("READY", "")})
        assert client.version("fake") == "2"
        loop.more()


def test_an_update_is_made_as_a_whole_or_not_at_all(repository: Path) -> None:
    """Else a later swap, which sends the configuration in force, would carry out what was refused."""
    with LaunchedServer(repository, *EVERYTHING) as server, RawClient(server.address) as client:
        before = client.call("ModelConfig", name="fake")
        published(repository, 2, _corrupt)
        published(repository, 3)
        (repository / "fake" / "config.pbtxt").write_text(
            "version_policy { all {} }\n"
            'parameters { key: "version_labels" value { string_value: "stable=1,canary=3" } }\n'
        )
        refused = refusal(lambda: client.load("fake"))[1]
        assert refused.startswith("load failed for model 'fake': version 2: ")
        because = "version 2 could not be loaded, and an update is made as a whole or not at all"
        assert client.index()["fake/1"] == ("READY", f"not replaced: {because}")
        assert client.index()["fake/3"] == ("UNAVAILABLE", f"not let in: {because}")
        assert client.call("ModelConfig", name="fake") == before
        assert refusal(lambda: client.version("fake", "canary"))[0] is grpc.StatusCode.INVALID_ARGUMENT
        published(repository, 2)
        client.load("fake")
        assert client.index() == {f"fake/{version}": ("READY", "") for version in (1, 2, 3)}
        assert client.version("fake", "canary") == "3"


@pytest.mark.parametrize("mode", MODES)
def test_a_configuration_with_an_error(mode: str, repository: Path) -> None:
    file = repository / "fake" / "config.pbtxt"
    with (
        LaunchedServer(repository, *MODES[mode]) as server,
        RawClient(server.address) as client,
        ClosedLoop(server.address, clients=2) as loop,
    ):
        file.write_text("max_batch_size: 8\n}}} garbage")
        if mode == "explicit":
            code, said = refusal(lambda: client.load("fake"))
            assert code is grpc.StatusCode.INVALID_ARGUMENT
            assert "config.pbtxt of model 'fake' does not parse: line 2" in said
        until(lambda: bool(client.index()["fake/1"][1]))
        assert client.index()["fake/1"][0] == "READY"
        assert client.index()["fake/1"][1].startswith("not replaced: config.pbtxt of model 'fake' does not parse")
        assert failed_loads(server) == {("", "config"): 1}
        until(lambda: logged(server, "does not parse: line 2") > 0)
        assert client.call("ServerReady").ready
        loop.more()
        file.write_text("max_batch_size: 8")
        if mode == "explicit":
            client.load("fake")
        until(lambda: client.call("ModelConfig", name="fake").config.max_batch_size == 8)
        assert client.index() == {"fake/1": ("READY", "")}


@pytest.mark.parametrize("mode", MODES)
def test_the_version_that_serves_is_damaged_on_disk(mode: str, repository: Path) -> None:
    """What is in memory needs no file, and a restart would be the worst time to find out: the index tells."""
    artifact = repository / "fake" / "1" / "model.fake.json"
    whole = artifact.read_text()
    with LaunchedServer(repository, *MODES[mode]) as server, RawClient(server.address) as client:
        artifact.write_text("{")
        if mode == "explicit":
            assert refusal(lambda: client.load("fake"))[0] is grpc.StatusCode.INVALID_ARGUMENT
        until(lambda: client.index()["fake/1"][1].startswith("not replaced: "))
        assert client.index()["fake/1"][0] == "READY"
        assert client.infer().tolist() == [6, 6]
        assert client.call("ServerReady").ready
        artifact.write_text(whole)
        if mode == "explicit":
            client.load("fake")
        until(lambda: client.index() == {"fake/1": ("READY", "")})


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A folder that takes 64 KiB."""
    folder = tmp_path / "small"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(folder)]
    if subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("only root may mount a small disk")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def test_a_disk_that_is_full(repository: Path, small_disk: Path) -> None:
    version = fake_models.write(repository.parent / "sent", version=3)
    files = {f"3/{path.name}": path.read_bytes() for path in version.iterdir()}
    environment = os.environ | {"TMPDIR": str(small_disk)}
    with (
        LaunchedServer(repository, *EVERYTHING, environment=environment) as server,
        RawClient(server.address) as client,
    ):
        code, said = refusal(lambda: client.load("fake", "{}", files | {"3/large": bytes(100_000)}))
        assert code is grpc.StatusCode.INVALID_ARGUMENT
        reason = (
            f"the files that were sent cannot be written to {small_disk}: No space left on device; name another folder"
        )
        assert f"load failed for model 'fake': {reason}" in said
        assert reason in client.index()["fake/1"][1]
        until(lambda: logged(server, reason) > 0)
        assert failed_loads(server) == {("", "system"): 1}
        assert client.version("fake") == "1"
        assert client.call("ServerReady").ready
        assert list(small_disk.iterdir()) == [], "what could be written is still there"
        client.load("fake", "{}", files)
        assert client.version("fake") == "3"
