"""Which backend and device serve where nobody or somebody has said so: measured, told, refused or replaced."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import grpc
import pytest
from prometheus_client.parser import text_string_to_metric_families

from serving import backends
from serving.errors import StartupError
from serving.launch import LaunchedServer
from tests.support import fake_models, real_model, summing
from tests.support.running import EVERYTHING, logged, until
from tests.support.wire import RawClient, refusal

FORMATS = ("onnx_runtime", "torchscript")
GPU = {"instance_group": [{"kind": "KIND_GPU"}]}
NO_DRIVER = "cuda:0 needs an NVIDIA driver, and libcuda.so.1 cannot be loaded"
FALLBACK = {"fallback": {"string_value": "onnxruntime@cpu"}}

without_gpu = pytest.mark.skipif(os.path.exists("/dev/nvidia0"), reason="there is a GPU")  # noqa: PTH110


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The model `real` in two formats, and `bare`, of which nothing is known but a file."""
    folder = tmp_path_factory.mktemp("repository")
    real_model.write(folder, FORMATS)
    summing.write(fake_models.write(folder, "bare"))
    for name in ("spec.json", "golden.npz", "model.fake.json"):
        (folder / "bare" / "1" / name).unlink()
    return folder


@pytest.fixture(scope="module")
def measured(repository: Path, edge: str) -> Iterator[LaunchedServer]:
    flags = ("--backend", "auto", "--model-control-mode", "explicit", "--load-model", "real")
    with LaunchedServer(repository, *flags) as running:
        yield running


def explained(repository: Path, *flags: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "serving", "--model-repository", str(repository), *flags]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=300)


def test_auto_measures_and_tells_what_it_has_chosen(measured: LaunchedServer) -> None:
    """In the log for people; in the metrics and ModelStatistics the same figures for programs."""
    assert measured.wait_for("loaded", 1)["choice"] == "by rule, not measured yet"
    told = measured.wait_for("measured", 120)  # when nobody has asked for five seconds
    assert (told["model"], told["version"], told["optimize_for"]) == ("real", "1", "latency")
    head, *lines = told["lines"]
    assert head.split()[:3] == ["backend", "device", "threads"]
    rows = [line.removeprefix("*").split() for line in lines]
    assert {row[0] for row in rows} == set(FORMATS)
    (chosen,) = (line for line in lines if line.startswith("*"))
    assert chosen.split()[1] == told["chosen"]
    assert measured.wait_for("loaded", 1)["asked"] == "auto"
    until(lambda: "backend_call_seconds" in measured.metrics())
    figures = {
        f"measured {s.labels['backend']} on {s.labels['device']}, {s.labels['threads']} threads, {s.labels['rows']} rows": s
        for family in text_string_to_metric_families(measured.metrics())
        for s in family.samples
        if s.name == "lstm_serving_backend_call_seconds"
    }
    assert len(figures) == 3 * len(rows)
    for row in rows:
        one_row = figures[f"measured {row[0]} on {row[1]}, {row[2]} threads, 1 rows"].value
        assert float(row[3]) == pytest.approx(one_row * 1e6, rel=0.01), "the table is told in microseconds"


def test_a_damaged_file_beside_one_that_serves_is_told(tmp_path: Path) -> None:
    """The version is served all the same; that one of its files is wrong must not be found by a fallback."""
    (fake_models.write(tmp_path) / "model.onnx").write_bytes(b"damaged")
    with LaunchedServer(tmp_path) as server, RawClient(server.address) as client:
        assert client.index()["fake/1"][0] == "READY"
        assert client.index()["fake/1"][1].startswith("onnx_runtime cannot serve it: ")
        assert "cannot be read by ONNX Runtime" in client.index()["fake/1"][1]
        until(lambda: logged(server, "not in onnx_runtime: ") == 1)
        assert 'model_load_failures_total{model="fake",reason="repository",version="1"} 1.0' in server.metrics()


def test_explain_prints_the_table_and_ends(repository: Path) -> None:
    done = explained(repository, "--explain", "real", "--optimize-for", "throughput")
    assert (done.returncode, done.stderr) == (0, "")
    title, head, *lines, why = done.stdout.splitlines()
    assert title == "real version 1, best first for throughput:"
    assert head.split()[:3] == ["backend", "device", "threads"]
    assert {line.removeprefix("*").split()[0] for line in lines} == set(FORMATS)
    (chosen,) = (line.split()[1] for line in lines if line.startswith("*"))
    assert f"; from now on {chosen} (measured), which gives way to what is better by more than 10%" in why
    assert len(list((repository / "real" / ".measured").iterdir())) == 1, "the next start knows it"


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("nobody", r"there is no model 'nobody' in .*; there are bare, real"),
        ("bare", r"bare/1 has no golden samples: nothing proves that its files compute the same"),
    ],
)
def test_explain_says_why_there_is_nothing_to_explain(name: str, said: str, repository: Path) -> None:
    done = explained(repository, "--explain", name)
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (1, "", 1)
    assert done.stderr.startswith("lstm-serve: error: ")
    assert re.search(said, done.stderr)


@without_gpu
@pytest.mark.parametrize("backend", ["onnxruntime", "pytorch", "tensorflow"])
def test_a_gpu_that_is_not_there_is_refused_and_the_old_one_serves_on(backend: str, tmp_path: Path) -> None:
    version, *_ = real_model.write(tmp_path, ("onnx_runtime",))
    for name in backends.PREFERENCE[1:]:
        (version / backends.module(name).FILE_NAME).touch()
    flags = ("--backend", "onnx_runtime", "--model-control-mode", "explicit", "--load-model", "real")
    with LaunchedServer(tmp_path, *flags) as server, RawClient(server.address) as client:
        code, said = refusal(lambda: client.load("real", json.dumps({"backend": backend} | GPU)))
        assert code is grpc.StatusCode.INVALID_ARGUMENT
        assert said.startswith("load failed for model 'real': version 1: no backend that was asked for can run here.")
        assert f"{backends.named(backend)} on cuda:0: {NO_DRIVER}" in said
        assert client.call("ModelConfig", name="real").config.instance_group[0].kind == 2  # KIND_CPU
        assert client.index()["real/1"][0] == "READY"
        assert NO_DRIVER in client.index()["real/1"][1]


@without_gpu
@pytest.mark.parametrize("backend", ["auto", *backends.PREFERENCE])
def test_a_server_that_is_to_use_a_gpu_does_not_start_without(backend: str, repository: Path) -> None:
    with pytest.raises(StartupError, match=NO_DRIVER):
        LaunchedServer(repository, "--backend", backend, "--device", "cuda:0")


@without_gpu
@pytest.mark.parametrize(
    ("flags", "config"),
    [
        (("--fallback", "always"), {"backend": "onnxruntime"} | GPU),
        ((), {"backend": "onnxruntime", "parameters": FALLBACK} | GPU),
    ],
    ids=["by the flag", "by the configuration"],
)
def test_a_gpu_that_is_not_there_is_replaced_where_that_was_configured(
    flags: tuple[str, ...], config: object, tmp_path: Path
) -> None:
    summing.write(fake_models.write(tmp_path))
    with LaunchedServer(tmp_path, *EVERYTHING, *flags) as server, RawClient(server.address) as client:
        client.load("fake", json.dumps(config))
        shown = client.call("ModelConfig", name="fake").config
        assert (shown.backend, shown.instance_group[0].kind) == ("onnxruntime", 2)
        state, reason = client.index()["fake/1"]
        assert state == "READY"
        assert NO_DRIVER in reason
        assert client.infer().tolist() == [6, 6]
        until(lambda: logged(server, "falling back at load: ") == 1)


@without_gpu
@pytest.mark.parametrize("where", ["by the flag", "by the configuration"])
def test_a_server_that_is_to_use_a_gpu_starts_without_where_that_was_configured(where: str, tmp_path: Path) -> None:
    summing.write(fake_models.write(tmp_path))
    flags = ["--backend", "onnx_runtime", "--device", "cuda:0"]
    if where == "by the flag":
        flags += ["--fallback", "always"]
    else:
        config = 'parameters { key: "fallback" value { string_value: "onnxruntime@cpu" } }'
        (tmp_path / "fake" / "config.pbtxt").write_text(config)
    with LaunchedServer(tmp_path, *flags) as server, RawClient(server.address) as client:
        assert client.infer().tolist() == [6, 6]
        assert client.call("ServerReady").ready
        assert NO_DRIVER in client.index()["fake/1"][1]
        assert server.wait_for("loaded", 1)["device"] == "cpu"


def test_a_load_that_has_fallen_back_is_tried_again_when_it_is_asked_for(tmp_path: Path) -> None:
    """It is not what was wanted, so the same load once more is not one that changes nothing."""
    version = fake_models.write(tmp_path)
    whole = summing.write(version).read_bytes()
    (version / "model.onnx").write_bytes(b"damaged")
    (tmp_path / "fake" / "config.pbtxt").write_text('backend: "onnxruntime"')
    with LaunchedServer(tmp_path, *EVERYTHING, "--fallback", "always") as server, RawClient(server.address) as client:
        assert client.call("ModelConfig", name="fake").config.backend == "fake"
        assert "cannot be read by ONNX Runtime" in client.index()["fake/1"][1]
        (version / "model.onnx").write_bytes(whole)
        client.load("fake")
        assert client.call("ModelConfig", name="fake").config.backend == "onnxruntime"
        assert client.index()["fake/1"] == ("READY", "")
        assert client.infer().tolist() == [6, 6]
