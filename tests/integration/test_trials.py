"""A file that ends the process which loads or runs it: everything else serves on, and everybody learns why."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import grpc
import numpy as np
import pytest

from serving import backends
from serving.launch import LaunchedServer
from serving.loading.remembered import FOLDER
from tests.support import commands, fake_models, killing_files, real_model
from tests.support.arrays import infer, session
from tests.support.fake_models import parameters
from tests.support.running import logged, metric, until
from tests.support.wire import RawClient, refusal

ONNX = ("--backend", "onnx_runtime")
FILE = backends.module("onnx_runtime").FILE_NAME
KILLED = f"{FILE} kills onnx_runtime"
SIGNAL = "ended with signal 8 (Floating point exception) while it was loaded on trial"
X = {"x": np.ones((1, 4, killing_files.FEATURES), np.float32)}

Write = Callable[[Path], None]


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    killing_files.write_healthy(tmp_path / "r" / "good" / "1" / FILE)
    return tmp_path / "r"


def put(repository: Path, name: str, version: int, write: Write) -> None:
    """A version that appears at once."""
    made = repository.parent / "made" / name / str(version)
    write(made / FILE)
    (repository / name).mkdir(exist_ok=True)
    made.rename(repository / name / str(version))


def tried(server: LaunchedServer) -> list[str]:
    """The models that were loaded on trial."""
    return sorted(entry["model"] for entry in server.log() if entry["message"] == "on trial")


def answers(client: RawClient, model: str = "good") -> bool:
    return infer(client, model, X)["y"].shape == (1, 4, killing_files.OUTPUTS)


def test_at_a_start_everything_else_serves_and_the_reason_is_told(repository: Path) -> None:
    put(repository, "kills", 1, killing_files.write_dividing)
    put(repository, "other", 1, killing_files.write_healthy)
    with LaunchedServer(repository, *ONNX) as server, RawClient(server.address) as client:
        assert answers(client)
        assert answers(client, "other")
        state, reason = client.index()["kills/1"]
        assert state == "UNAVAILABLE"
        assert KILLED in reason
        assert SIGNAL in reason
        assert "so at every level of optimisation (all, extended, basic). Export it again" in reason
        assert tried(server) == ["good", "kills", "other"]  # each once, although trials run ahead of the loads
        assert metric(server, "model_load_failures_total", model="kills", version="1", reason="repository") == 1


def test_a_load_by_a_client_is_refused_and_the_server_lives(repository: Path) -> None:
    put(repository, "kills", 1, killing_files.write_dividing)
    flags = ("--model-control-mode", "explicit", "--load-model", "good")
    with LaunchedServer(repository, *ONNX, *flags) as server, RawClient(server.address) as client:
        for _ in range(2):
            code, said = refusal(lambda: client.load("kills"))
            assert code is grpc.StatusCode.INVALID_ARGUMENT
            assert said.startswith("load failed for model 'kills': version 1: ")
            assert KILLED in said
            assert SIGNAL in said
        assert answers(client)
        put(repository, "kills", 2, killing_files.write_healthy)
        client.load("kills")
        assert answers(client, "kills")


def test_a_swap_leaves_what_serves_and_so_does_poll_mode(repository: Path) -> None:
    flags = ("--model-control-mode", "poll", "--repository-poll-secs", "0.05")
    with LaunchedServer(repository, *ONNX, *flags) as server, RawClient(server.address) as client:
        put(repository, "good", 2, killing_files.write_dividing)
        until(lambda: client.index().get("good/2", ("",))[0] == "UNAVAILABLE")
        assert KILLED in client.index()["good/2"][1]
        assert client.version("good") == "1"
        put(repository, "good", 3, lambda path: killing_files.write_healthy(path, seed=3))
        until(lambda: client.index().get("good/3", ("",))[0] == "READY")
        until(lambda: client.version("good") == "3")
        # What was remembered is no change of the repository: nothing is loaded again.
        assert (repository / "good" / FOLDER).is_dir()
        assert [entry["version"] for entry in server.log() if entry["message"] == "loaded"] == ["1", "3"]


def test_a_shadow_that_would_kill_harms_nobody(repository: Path) -> None:
    put(repository, "good", 2, killing_files.write_dividing)
    config = "version_policy { specific { versions: 1 } }\n" + parameters({"shadow": "2", "shadow_share": "1"})
    (repository / "good" / "config.pbtxt").write_text(config)
    with LaunchedServer(repository, *ONNX) as server, RawClient(server.address) as client:
        assert answers(client)
        assert KILLED in client.index()["good/1"][1]
        assert logged(server, "the shadow 2 does not run") == 1


def test_what_would_stand_in_for_a_broken_backend_is_tried_too(tmp_path: Path) -> None:
    version = fake_models.write(tmp_path, fail_while="broken")
    killing_files.write_float16(version / FILE)  # of another signature: what survives at a lower level is refused there
    flags = ("--backend", "fake", "--breaker-failures", "1", "--breaker-reset", "0.05")
    with LaunchedServer(tmp_path, *flags) as server, RawClient(server.address) as client:
        (version / "broken").touch()
        assert "and nothing else can: RuntimeError: asked to fail" in refusal(client.infer)[1]
        assert tried(server) == ["fake"]
        (version / "broken").unlink()
        until(lambda: client.index()["fake/1"] == ("READY", ""))
        assert client.infer(value=1.0)[0] == 2 * fake_models.FEATURES


def test_a_lower_level_of_optimisation_is_found_said_remembered_and_answers_rightly(repository: Path) -> None:
    put(repository, "half", 1, killing_files.write_float16)
    remark = "loaded at the level 'extended' of optimisation: at 'all' its process ended with signal 11"
    sent = {"x": np.random.default_rng(3).normal(size=(3, 5, killing_files.FEATURES)).astype(np.float16)}
    told = []
    for _ in range(2):
        with LaunchedServer(repository, *ONNX) as server, RawClient(server.address) as client:
            state, reason = client.index()["half/1"]
            assert state == "READY"
            assert reason.startswith(remark)
            assert "not verified" in reason
            got = infer(client, "half", sent)["y"]
            told.append(tried(server))
            assert logged(server, remark) == 1
    assert told == [["good", "half"], []]
    onnx = session(repository / "half" / "1" / FILE, level="ORT_ENABLE_EXTENDED")
    np.testing.assert_allclose(got, onnx.run(["y"], sent)[0], atol=1e-3)


@pytest.mark.parametrize("trial", ["always", "off"])
def test_the_operator_may_have_everything_tried_or_nothing(trial: str, repository: Path, tmp_path: Path) -> None:
    fake_models.write(repository)
    (repository / "fake" / "config.pbtxt").write_text('backend: "fake"')
    for _ in range(2):
        with LaunchedServer(repository, *ONNX, "--trial", trial) as server, RawClient(server.address) as client:
            assert answers(client)
            assert len(tried(server)) == (2 if trial == "always" else 0)


@pytest.fixture
def unwritable(repository: Path, tmp_path: Path) -> dict[str, str]:
    """Neither the model's folder nor the cache takes anything, whoever runs the tests."""
    (repository / "good" / FOLDER).write_text("no folder")
    (tmp_path / "cache").write_text("no folder")
    return {**os.environ, "XDG_CACHE_HOME": str(tmp_path / "cache")}


def test_a_place_that_cannot_be_written_costs_a_trial_and_the_log_says_so(
    repository: Path, unwritable: dict[str, str]
) -> None:
    for _ in range(2):
        with LaunchedServer(repository, *ONNX, environment=unwritable) as server:
            assert len(tried(server)) == 1
            assert logged(server, "every start tries it again") == 1


def test_what_our_own_writers_made_starts_no_child(tmp_path: Path) -> None:
    version, *_ = real_model.write(tmp_path, ["onnx_runtime"], name="ours")
    with LaunchedServer(tmp_path, *ONNX) as server:
        assert tried(server) == []
    assert not (tmp_path / "ours" / FOLDER).exists()
    spec = version / "spec.json"
    spec.write_text(spec.read_text().replace("own_files", "files"))  # as an older exporter wrote it
    with LaunchedServer(tmp_path, *ONNX) as server:
        assert len(tried(server)) == 1


def test_an_import_survives_and_what_it_writes_can_be_served(tmp_path: Path) -> None:
    for name, write in (
        ("kills", killing_files.write_dividing),
        ("half", killing_files.write_float16),
        ("ranks", killing_files.write_of_another_rank),
    ):
        write(tmp_path / f"{name}.onnx")
    into = ("--repository", str(tmp_path / "r"))
    refused = commands.export("import", str(tmp_path / "kills.onnx"), *into, "--name", "kills")
    assert refused.returncode == 2
    assert f"{tmp_path / 'kills.onnx'} kills onnx_runtime" in refused.stderr
    assert not (tmp_path / "r" / "kills").exists()
    half = commands.export("import", str(tmp_path / "half.onnx"), *into, "--name", "half")
    assert "used at the level 'extended' of optimisation" in half.stdout
    ranks = commands.export("import", str(tmp_path / "ranks.onnx"), *into, "--name", "ranks")
    assert (half.returncode, ranks.returncode) == (0, 0)
    with LaunchedServer(tmp_path / "r", *ONNX) as server, RawClient(server.address) as client:
        assert {state for state, _ in client.index().values()} == {"READY"}
        assert infer(client, "ranks", X)["y"].shape == (4, 1, killing_files.OUTPUTS)
    explain = [sys.executable, "-m", "serving", "--model-repository", str(tmp_path / "r"), "--explain", "half"]
    explained = subprocess.run(explain, capture_output=True, text=True, check=True).stdout
    assert explained.splitlines()[-1].startswith("loaded at the level 'extended' of optimisation: at 'all'")
    assert "cannot serve" not in explained  # it was measured at the level that works
