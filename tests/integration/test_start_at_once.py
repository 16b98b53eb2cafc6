"""A server that chooses its backends is ready at once, measures when nobody asks, and knows at its next start."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from serving.backends.base import Candidate, Measured
from serving.errors import StartupError
from serving.launch import LaunchedServer
from serving.loading.measurements import FOLDER, Measurements
from serving.loading.measuring import cpus_here
from serving.loading.ranking import candidates
from serving.repository.folders import VersionFolder
from tests.support import fake_models, summing
from tests.support.running import logged, swaps, until
from tests.support.wire import RawClient

POLL = ("--model-control-mode", "poll", "--repository-poll-secs", "0.05")
EXPLICIT = ("--model-control-mode", "explicit", "--load-model", "*")


def two_ways(repository: Path, name: str = "fake", **how: float) -> Path:
    """A version that ONNX Runtime serves by rule, and that the fake backend could serve, too; `how` is of that one."""
    folder = fake_models.write(repository, name)
    summing.write(folder)
    (folder / "model.fake.json").write_text(json.dumps(how))
    return folder


def hanging(repository: Path, name: str = "fake") -> Path:
    """The same; a measurement of the second backend takes until somebody ends it."""
    return two_ways(repository, name, delay_seconds=600)


def children(server: LaunchedServer) -> list[int]:
    """The processes that the server has started and that have not ended."""
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            state, parent = stat.read_text().rpartition(")")[2].split()[:2]
        except OSError:  # it has just ended
            continue
        if int(parent) == server.process.pid and state != "Z":
            found.append(int(stat.parent.name))
    return found


def measuring(server: LaunchedServer, name: str = "fake", times: int = 1) -> int:
    """Waits until the second backend of a model is being measured, and returns the process that does it."""

    def seen() -> int:
        asked = [one for one in server.log() if one["message"] == "measuring" and one["backend"] == "fake"]
        return len([one for one in asked if one["model"] == name])

    until(lambda: seen() == times and len(children(server)) == 1)
    (child,) = children(server)
    return child


def chosen(client: RawClient, name: str = "fake") -> str:
    """What `lstm-admin index` shows."""
    told: str = client.call("ModelConfig", name=name).config.parameters["lstm_serving.chosen"].string_value
    return told


def loaded(server: LaunchedServer, name: str = "fake") -> list[Mapping[str, Any]]:
    return [one for one in server.log() if one["message"] == "loaded" and one["model"] == name]


def test_it_is_ready_at_once_measures_when_nobody_asks_and_knows_at_the_next_start(tmp_path: Path) -> None:
    """What it writes beside the model is no change of the repository to a server that follows it."""
    repository = tmp_path / "repository"
    two_ways(repository)
    with LaunchedServer(repository, *POLL) as server, RawClient(server.address) as client:
        assert children(server) == []
        assert logged(server, "measur") == 0
        assert chosen(client) == "by rule, not measured yet"
        server.wait_for("measured", 60)
        until(lambda: chosen(client) == "measured")
        (kept,) = (repository / "fake" / FOLDER).iterdir()
        assert len(json.loads(kept.read_text())["figures"]) == 2 * len(candidates(["fake"], ["cpu"], None, cpus_here()))
        fake_models.write(tmp_path / "made", "zz")
        (tmp_path / "made" / "zz").rename(repository / "zz")
        until(lambda: client.index().get("zz/1") == ("READY", ""))  # so it has looked, twice
        assert len([one for one in loaded(server) if one["choice"] != "measured"]) == 1
        assert client.infer().tolist() == [6, 6]
        assert children(server) == []
    with LaunchedServer(repository, *POLL) as server, RawClient(server.address) as client:
        assert chosen(client) == "measured"
        assert [one["message"] for one in server.log() if one["message"].startswith("measur")] == ["measured before"]
        assert [one["choice"] for one in loaded(server)] == ["measured"]


def test_a_request_ends_the_measurement_and_whoever_kills_it_kills_nothing_else(tmp_path: Path) -> None:
    hanging(tmp_path)
    with LaunchedServer(tmp_path) as server, RawClient(server.address) as client:
        first = measuring(server)
        assert chosen(client) == "by rule, being measured"
        assert os.getpriority(os.PRIO_PROCESS, first) == os.getpriority(os.PRIO_PROCESS, server.process.pid) + 10
        os.kill(first, signal.SIGKILL)
        until(lambda: logged(server, "measured another time: its process was ended by somebody else") == 1)
        assert client.index()["fake/1"] == ("READY", "")
        second = measuring(server, times=2)
        assert second != first
        assert client.infer().tolist() == [6, 6]
        until(lambda: children(server) == [])
        until(lambda: logged(server, "measured another time: clients ask") == 1)
        until(lambda: chosen(client) == "by rule, to be measured when nobody asks")
        assert client.infer().tolist() == [6, 6]


def test_whoever_unloads_swaps_or_leaves_does_not_wait_for_a_measurement(tmp_path: Path) -> None:
    for name in ("a", "b", "c"):
        hanging(tmp_path, name)
    with LaunchedServer(tmp_path, *EXPLICIT) as server, RawClient(server.address) as client:
        measuring(server, "a")
        client.unload("a")
        until(lambda: children(server) == [])
        assert client.index()["a/1"] == ("UNAVAILABLE", "unloaded")
        measuring(server, "b")
        client.load("b", json.dumps({"backend": "onnxruntime", "max_batch_size": 4}))
        assert chosen(client, "b") == "as asked"
        child = measuring(server, "c")
        assert server.stop() == 0
        with pytest.raises(ProcessLookupError):
            os.kill(child, 0)
        assert logged(server, "stopped") == 1


def known(folder: Path, **seconds: float) -> None:
    """Beside the model lies what was measured of some of its backends."""
    version = VersionFolder(1, folder)
    every = candidates(version.formats(), ["cpu"], None, cpus_here())
    figures = [
        Measured(one, dict.fromkeys((1, 8, 32), seconds[one.backend])) for one in every if one.backend in seconds
    ]
    Measurements(cache=lambda: None).keep(version, every, figures)


def test_who_is_better_takes_over_while_the_server_serves(tmp_path: Path) -> None:
    """Of ONNX Runtime something very slow is known from before, so that the other one alone is measured."""
    known(two_ways(tmp_path), onnx_runtime=1.0)
    with LaunchedServer(tmp_path) as server, RawClient(server.address) as client:
        assert client.call("ModelConfig", name="fake").config.backend == "onnxruntime"
        until(lambda: swaps(server) == {("onnx_runtime", "fake", "measured"): 1})
        assert client.infer().tolist() == [6, 6]
        assert (client.call("ModelConfig", name="fake").config.backend, chosen(client)) == ("fake", "measured")
        assert [one["backend"] for one in server.log() if one["message"] == "measuring"] == ["fake"]
    with LaunchedServer(tmp_path) as server, RawClient(server.address) as client:
        assert client.call("ModelConfig", name="fake").config.backend == "fake"
        assert [one["backend"] for one in loaded(server)] == ["fake"]


def test_where_the_repository_cannot_be_written_it_is_kept_in_the_folder_named_for_it(tmp_path: Path) -> None:
    """Whoever runs the tests, root too: where the folder should be there is a file."""
    repository, cache = tmp_path / "repository", tmp_path / "cache"
    two_ways(repository)
    (repository / "fake" / FOLDER).write_text("no folder")
    with LaunchedServer(repository, "--auto-cache", str(cache)) as server:
        server.wait_for("measured", 60)
    assert cache.stat().st_mode & 0o777 == 0o700
    with LaunchedServer(repository, "--auto-cache", str(cache)) as server, RawClient(server.address) as client:
        assert chosen(client) == "measured"
    cache.chmod(0o755)
    with pytest.raises(StartupError, match="belongs to somebody else, or others may read or write it"):
        LaunchedServer(repository, "--auto-cache", str(cache))
    (tmp_path / "link").symlink_to(cache)
    with pytest.raises(StartupError, match=r"--auto-cache .*/link cannot be used: it is a symbolic link"):
        LaunchedServer(repository, "--auto-cache", str(tmp_path / "link"))
    with LaunchedServer(repository, "--auto-cache", "off") as server, RawClient(server.address) as client:
        assert chosen(client) == "by rule, not measured yet"


def test_what_lies_there_and_is_no_measurement_is_ignored(tmp_path: Path) -> None:
    folder = two_ways(tmp_path)
    known(folder, onnx_runtime=1.0, fake=1e-6)
    (entry,) = (tmp_path / "fake" / FOLDER).iterdir()
    fields = json.loads(entry.read_text())
    entry.write_text(json.dumps(fields | {"figures": [{"backend": "fake", "device": "cpu", "threads": -1}]}))
    with LaunchedServer(tmp_path) as server, RawClient(server.address) as client:
        assert chosen(client) == "by rule, not measured yet"
        assert logged(server, f"ignored: {entry}: ") == 1


def test_several_models_are_loaded_and_one_that_fails_keeps_none_from_serving(tmp_path: Path) -> None:
    for number in range(6):
        two_ways(tmp_path, f"m{number}")
    (tmp_path / "m2" / "1" / "spec.json").write_text("{")
    with LaunchedServer(tmp_path) as server, RawClient(server.address) as client:
        states = {name: state for name, (state, _) in client.index().items()}
        assert states == {f"m{number}/1": "UNAVAILABLE" if number == 2 else "READY" for number in range(6)}
        for number in (0, 1, 3, 4, 5):
            assert client.infer(f"m{number}").tolist() == [6, 6]


@pytest.mark.parametrize("candidate", [Candidate("onnx_runtime", "cpu", 1), Candidate("fake", "cpu", 1)])
def test_what_the_operator_names_is_never_measured(candidate: Candidate, tmp_path: Path) -> None:
    known(two_ways(tmp_path), onnx_runtime=1.0, fake=1e-6)
    with LaunchedServer(tmp_path, "--backend", candidate.backend) as server, RawClient(server.address) as client:
        assert [one["backend"] for one in loaded(server)] == [candidate.backend]
        assert chosen(client) == "as asked"
