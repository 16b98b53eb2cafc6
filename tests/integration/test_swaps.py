"""Backends are exchanged while clients ask: no request fails, no answer changes, no count falls."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from prometheus_client.parser import text_string_to_metric_families

from protos import grpc_service_pb2 as pb
from serving.launch import LaunchedServer
from serving.verification import golden
from tests.support import fake_models, real_model, summing
from tests.support.closed_loop import Ask, ClosedLoop
from tests.support.running import EVERYTHING, metric, until
from tests.support.wire import RawClient

Counts = Mapping[tuple[str, ...], float]


def counts(server: LaunchedServer, client: RawClient, model: str) -> Counts:
    """Everything that may only rise: counters and buckets of the metrics, counts and nanoseconds of the statistics."""
    found: dict[tuple[str, ...], float] = {}
    for family in text_string_to_metric_families(server.metrics()):
        for sample in family.samples:
            rises = family.type in ("counter", "histogram") and not sample.name.endswith("_created")
            if rises and sample.labels.get("model") == model:
                found[sample.name, *map(str, sorted(sample.labels.items()))] = sample.value
    (statistics,) = client.call("ModelStatistics", name=model).model_stats
    found["inference_count",] = statistics.inference_count
    found["execution_count",] = statistics.execution_count
    for field, duration in statistics.inference_stats.ListFields():
        found["statistics", field.name] = duration.count
        found["statistics", field.name, "ns"] = duration.ns
    for batch in statistics.batch_stats:
        found["batch", str(batch.batch_size)] = batch.compute_infer.count
    return found


def fallen(before: Counts, after: Counts) -> list[str]:
    """What is less than it was, or gone."""
    return [f"{key}: {value} -> {after.get(key)}" for key, value in before.items() if after.get(key, -1) < value]


def config(backend: str) -> str:
    return json.dumps({"backend": backend, "max_batch_size": 8, "dynamic_batching": {}})


def test_a_model_is_swapped_under_load(tmp_path: Path) -> None:
    summing.write(fake_models.write(tmp_path))
    rounds = 4
    with LaunchedServer(tmp_path, *EVERYTHING) as server, RawClient(server.address) as client:
        with ClosedLoop(server.address) as loop:
            loop.more()
            before = counts(server, client, "fake")
            for _ in range(rounds):
                for backend in ("onnxruntime", "fake"):
                    client.load("fake", config(backend))
                    loop.more()
                    after = counts(server, client, "fake")
                    assert fallen(before, after) == []
                    before = after
        to, back = ({"model": "fake", "version": "1", "from": a, "to": b, "reason": "requested"} for a, b in (
            ("fake", "onnx_runtime"), ("onnx_runtime", "fake"),
        ))  # fmt: skip
        assert metric(server, "backend_swaps_total", **to) == metric(server, "backend_swaps_total", **back) == rounds
        by_backend = [
            metric(server, "requests_total", backend=name, outcome="success") for name in ("fake", "onnx_runtime")
        ]
        assert min(by_backend) > 10 * rounds
        (statistics,) = client.call("ModelStatistics", name="fake").model_stats
        assert statistics.inference_stats.success.count == sum(by_backend) == loop.answered
        assert statistics.inference_stats.fail.count == 0
        assert statistics.inference_stats.queue.count == loop.answered


def asking(model: str, inputs: Mapping[str, Any], expected: np.ndarray[Any, Any]) -> Ask:
    """Asks a real model for one row of the batch or for two, and holds it to the equations."""

    def ask(client: RawClient, number: int, time: int) -> None:
        rows = [(number + time) % 6, (number + 1) % 6][: 1 + time % 2]
        request = pb.ModelInferRequest(model_name=model)
        for name, datatype in (("x", "FP32"), ("lengths", "INT64"), ("h0", "FP32"), ("c0", "FP32")):
            array = np.ascontiguousarray(inputs[name][rows])
            request.inputs.add(name=name, datatype=datatype, shape=array.shape)
            request.raw_input_contents.append(array.tobytes())
        answer = client.method("ModelInfer")(request, timeout=120).raw_output_contents[0]
        got = np.frombuffer(answer, np.float32).reshape(len(rows), -1)
        assert golden.disagreement(got, expected[rows]) < 1e-5

    return ask


@pytest.fixture(scope="module")
def temporary(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where `server` puts what clients send."""
    return tmp_path_factory.mktemp("temporary")


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What `server` serves from."""
    return tmp_path_factory.mktemp("repository")


@pytest.fixture(scope="module")
def server(repository: Path, temporary: Path, edge: str) -> Iterator[LaunchedServer]:
    """Serves nothing at first; what has imported every runtime serves the next test too."""
    flags = ("--backend", "onnx_runtime", "--model-control-mode", "explicit")
    environment = os.environ | {"TMPDIR": str(temporary)}
    with LaunchedServer(repository, *flags, environment=environment) as running:
        yield running
        assert running.stop() == 0


def test_a_real_model_is_swapped_through_every_backend_under_load(server: LaunchedServer, repository: Path) -> None:
    _, inputs, expected = real_model.write(repository)
    with RawClient(server.address) as client:
        client.load("real")
        assert client.call("ModelConfig", name="real").config.backend == "onnxruntime"
        with ClosedLoop(server.address, asking("real", inputs, expected), rest_seconds=0.03) as loop:
            before = counts(server, client, "real")
            for backend in ("pytorch", "tensorflow", "onnxruntime", "tensorflow", "pytorch", "onnxruntime"):
                if backend == "onnxruntime":
                    loop.rest_seconds = 0  # every runtime is in memory
                loop.more()
                client.load("real", config(backend))
                assert client.call("ModelConfig", name="real").config.backend == backend
                after = counts(server, client, "real")
                assert fallen(before, after) == []
                before = after
            loop.more()
        for old, new in (
            ("onnx_runtime", "torchscript"),
            ("torchscript", "saved_model"),
            ("saved_model", "onnx_runtime"),
            ("onnx_runtime", "saved_model"),
            ("saved_model", "torchscript"),
            ("torchscript", "onnx_runtime"),
        ):
            swaps = {"from": old, "to": new, "reason": "requested"}
            assert metric(server, "backend_swaps_total", model="real", **swaps) == 1
        client.unload("real")


def test_a_real_version_is_sent_in_every_format(server: LaunchedServer, temporary: Path, tmp_path: Path) -> None:
    """The files are gone when the next ones are there, and every runtime has all that it needs in memory."""
    version, inputs, expected = real_model.write(tmp_path)
    ask = asking("sent", inputs, expected)
    files = {f"1/{path.relative_to(version)}": path.read_bytes() for path in version.rglob("*") if path.is_file()}
    with RawClient(server.address) as client:
        for backend in ("tensorflow", "pytorch", "onnxruntime"):
            client.load("sent", config(backend), files)
            assert client.call("ModelConfig", name="sent").config.backend == backend
            (folder,) = temporary.glob("lstm-serving-*")
            for file in folder.rglob("*"):
                if file.is_file():
                    file.write_bytes(b"")
            for time in range(12):
                ask(client, 0, time)
        client.unload("sent")
        until(lambda: not list(temporary.glob("lstm-serving-*")))


def held(server: LaunchedServer) -> tuple[int, int]:
    """Open files and threads of the server's process."""
    process = Path("/proc") / str(server.process.pid)
    return len(list((process / "fd").iterdir())), len(list((process / "task").iterdir()))


def test_fifty_reloads_leave_nothing_behind(tmp_path: Path) -> None:
    """Neither a thread nor an open file of any of the models that were exchanged, nor of their shadows and instances."""
    version = fake_models.write(tmp_path / "repository")
    summing.write(version)
    shadow = {"shadow": "onnxruntime", "shadow_share": "0.5"}
    parameters = {key: {"string_value": value} for key, value in shadow.items()}
    group = {"instance_group": [{"count": 2}], "parameters": parameters}
    files = {f"1/{path.name}": path.read_bytes() for path in version.iterdir()}
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    with (
        LaunchedServer(
            tmp_path / "repository", *EVERYTHING, environment=os.environ | {"TMPDIR": str(temporary)}
        ) as server,
        RawClient(server.address) as client,
    ):
        with ClosedLoop(server.address, rest_seconds=0.01) as loop:
            kinds = [("onnxruntime", None), ("fake", files), ("fake", None)]
            for backend, sent in kinds:
                client.load("fake", json.dumps({"backend": backend} | group), sent)
            loop.more(100)  # whatever is made at first use is there
            before = held(server)
            for number in range(50):
                backend, sent = kinds[number % 3]
                client.load("fake", json.dumps({"backend": backend} | group), sent)
                loop.more(5)
            client.load("fake", json.dumps({"backend": "fake"} | group))
            # The server's pools may still grow by some threads; what leaks, leaks fifty.
            until(lambda: all(now < then + 25 for now, then in zip(held(server), before, strict=True)))
        assert list(temporary.iterdir()) == []
        assert server.stop() == 0
