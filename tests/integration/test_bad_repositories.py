"""A model that cannot be served is named with its reason; the others are served all the same."""

from __future__ import annotations

import os
import shutil
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path

import grpc
import numpy as np
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from numpy.lib import format as npy

from serving.launch import LaunchedServer
from serving.verification import golden
from tests.support import fake_models
from tests.support.running import FAKE
from tests.support.wire import RawClient


def _no_spec(folder: Path) -> None:
    (folder / "spec.json").unlink()


def _half_spec(folder: Path) -> None:
    text = (folder / "spec.json").read_text()
    (folder / "spec.json").write_text(text[: len(text) // 2])


def _no_golden(folder: Path) -> None:
    (folder / "golden.npz").unlink()


def _half_golden(folder: Path) -> None:
    content = (folder / "golden.npz").read_bytes()
    (folder / "golden.npz").write_bytes(content[: len(content) // 2])


def _no_artifact(folder: Path) -> None:
    (folder / "model.fake.json").unlink()


def _corrupt_artifact(folder: Path) -> None:
    (folder / "model.fake.json").write_text("{")


def _cannot_run(folder: Path) -> None:
    (folder / "model.fake.json").write_text('{"fail_on": 1.0}')


def _disagrees(folder: Path) -> None:
    samples = golden.read_samples(folder / golden.FILE_NAME)
    shifted = [golden.Sample(s.inputs, {name: a + np.float32(0.5) for name, a in s.outputs.items()}) for s in samples]
    golden.write_samples(folder / golden.FILE_NAME, shifted)


def _no_version(folder: Path) -> None:
    shutil.rmtree(folder)


def _garbage_config(folder: Path) -> None:
    (folder.parent / "config.pbtxt").write_text("max_batch_size: 8\n}}} garbage")


def _binary_config(folder: Path) -> None:
    (folder.parent / "config.pbtxt").write_bytes(b"\xff\xfe\x00")


def _cuda(folder: Path) -> None:
    (folder.parent / "config.pbtxt").write_text("instance_group [ { kind: KIND_GPU } ]")


def _piped(name: str) -> Callable[[Path], None]:
    def fault(folder: Path) -> None:
        (folder / name).unlink(missing_ok=True)
        os.mkfifo(folder / name)

    return fault


def _lost(name: str) -> Callable[[Path], None]:
    def fault(folder: Path) -> None:
        (folder / name).unlink(missing_ok=True)
        (folder / name).symlink_to("nowhere")

    return fault


def _bomb(folder: Path) -> None:
    """A few bytes that say they are a thousand million numbers."""
    with zipfile.ZipFile(folder / "golden.npz", "w") as archive, archive.open("0/in/x.npy", "w") as file:
        npy.write_array_header_1_0(file, {"descr": "<f4", "fortran_order": False, "shape": (10**9,)})


def _edited(folder: Path) -> None:
    text = (folder / "spec.json").read_text()
    (folder / "spec.json").write_text(text.replace('"tolerance": 1e-05', '"tolerance": "loose"'))


def _no_label_file(folder: Path) -> None:
    (folder.parent / "config.pbtxt").write_text(
        'output { name: "y" data_type: TYPE_FP32 dims: 2 label_filename: "names.txt" }'
    )


FAULTS: dict[Callable[[Path], None], str] = {
    _no_spec: "spec.json is missing: the version is incomplete; export it again",
    _half_spec: "spec.json is not a usable specification",
    _no_golden: "golden.npz is missing",
    _half_golden: "golden.npz is not a usable set of golden samples",
    _no_artifact: "the version holds no model file",
    _corrupt_artifact: "model.fake.json is not a usable fake model",
    _disagrees: "version 1 in fake on cpu: y differs from the trained model by",
    _cannot_run: "cannot run its golden samples: RuntimeError: asked to fail on 1.0",
    _no_version: "holds no version",
    _garbage_config: "config.pbtxt of model 'm_garbage_config' does not parse: line 2",
    _binary_config: "config.pbtxt cannot be read",
    _cuda: "the fake backend runs on the CPU only; device 'cuda:0' was asked for",
    _bomb: "holds '0/in/x.npy' of float32 and shape [1000000000], which are not the 0 bytes that it has",
    _edited: 'spec.json is not a usable specification: tolerance is "loose"; it must be a number',
    _no_label_file: "label_filename of output 'y' is 'names.txt', and",
}
for _place in ("spec.json", "golden.npz", "model.fake.json", "weights.bin", "../config.pbtxt", "../labels.txt"):
    for _made, _kind in ((_piped(_place), "is a named pipe"), (_lost(_place), "is a symbolic link to nowhere")):
        _made.__name__ = f"{_kind.replace(' ', '_')}_{_place.strip('./')}"
        FAULTS[_made] = f"{_place.strip('./')} {_kind}"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, edge: str) -> Iterator[LaunchedServer]:
    repository = tmp_path_factory.mktemp("repository")
    fake_models.write(repository)
    for fault in FAULTS:
        fault(fake_models.write(repository, f"m{fault.__name__}"))
    with LaunchedServer(repository, *FAKE) as running:
        yield running


@pytest.mark.parametrize(("fault", "reason"), FAULTS.items(), ids=[fault.__name__ for fault in FAULTS])
def test_the_reason_is_in_the_index_and_in_every_answer(server: LaunchedServer, fault: object, reason: str) -> None:
    name = f"m{fault.__name__}"  # type: ignore[attr-defined]
    with RawClient(server.address) as client:
        (entry,) = (model for model in client.call("RepositoryIndex").models if model.name == name)
        assert entry.state == "UNAVAILABLE"
        assert reason in entry.reason
        with pytest.raises(grpc.RpcError) as refused:
            client.infer(name)
        assert refused.value.code() is grpc.StatusCode.NOT_FOUND
        assert f"'{name}' has no available versions" in refused.value.details()
        assert reason in refused.value.details()
        assert not client.call("ModelReady", name=name).ready


def test_a_named_version_that_failed_is_unavailable(server: LaunchedServer) -> None:
    with RawClient(server.address) as client, pytest.raises(grpc.RpcError) as refused:
        client.call("ModelInfer", model_name="m_no_spec", model_version="1")
    assert refused.value.code() is grpc.StatusCode.UNAVAILABLE
    assert "is not at ready state (UNAVAILABLE: " in refused.value.details()


def test_the_others_are_served_and_the_server_is_not_ready(server: LaunchedServer) -> None:
    with RawClient(server.address) as client:
        assert client.infer().tolist() == [6, 6]
        assert client.call("ServerLive").live
        assert not client.call("ServerReady").ready
        answer = health_pb2_grpc.HealthStub(client.channel).Check(health_pb2.HealthCheckRequest())
        assert answer.status == health_pb2.HealthCheckResponse.NOT_SERVING
        assert [model.name for model in client.call("RepositoryIndex", ready=True).models] == ["fake"]


def test_the_log_and_the_metric_name_them_too(server: LaunchedServer) -> None:
    refused = {entry["model"] for entry in server.log() if entry["message"].startswith("not loaded")}
    assert refused == {f"m{fault.__name__}" for fault in FAULTS}
    assert 'model="m_no_spec",state="UNAVAILABLE",verified="false",version="1"' in server.metrics()


def test_the_index_of_another_repository_is_not_served(server: LaunchedServer) -> None:
    with RawClient(server.address) as client, pytest.raises(grpc.RpcError) as refused:
        client.call("RepositoryIndex", repository_name="elsewhere")
    assert refused.value.code() is grpc.StatusCode.UNIMPLEMENTED
