"""Swaps between CPU and GPU while requests flow, and what becomes of requests that the GPU has no memory for."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest

from models.config import LSTMConfig
from protos import grpc_service_pb2 as pb
from serving import backends
from serving.errors import BackendUnavailable
from serving.launch import LaunchedServer
from serving.verification import golden
from tests.support import artefacts, oracle, real_model
from tests.support.closed_loop import Ask, ClosedLoop
from tests.support.wire import RawClient

CONFIG = artefacts.FEATURES
TOLERANCE = 1e-5


def usable() -> tuple[str, ...]:
    """The backends whose packages are here, on whatever device."""
    found = []
    for name in backends.PREFERENCE:
        try:
            backends.module(name).available("cpu")
        except BackendUnavailable:
            continue
        found.append(name)
    return tuple(found)


def asked(rows: int, steps: int) -> tuple[pb.ModelInferRequest, np.ndarray]:
    """A request, and the answer that the equations give to it."""
    inputs = artefacts.batch(CONFIG, rows, steps)
    request = pb.ModelInferRequest(model_name="lstm")
    for key, array in inputs.items():
        request.inputs.add(name=key, datatype="INT64" if array.dtype == np.int64 else "FP32", shape=array.shape)
        request.raw_input_contents.append(array.tobytes())
    return request, oracle.predict(CONFIG, artefacts.weights(CONFIG), inputs)["y"]


def correctly() -> Ask:
    """Asks for two rows, and holds the answer to the equations."""
    request, expected = asked(2, 9)

    def ask(client: RawClient, number: int, time: int) -> None:
        answer = client.method("ModelInfer")(request, timeout=60)
        y = np.frombuffer(answer.raw_output_contents[0], np.float32).reshape(expected.shape)
        assert golden.disagreement(y, expected) <= TOLERANCE

    return ask


def swap(client: RawClient, backend: str, kind: str) -> None:
    override = json.dumps({"backend": backend, "instance_group": [{"kind": kind, "count": 1}]})
    parameter = pb.ModelRepositoryParameter(string_param=override)
    client.call("RepositoryModelLoad", model_name="lstm", parameters={"config": parameter})
    (group,) = client.call("ModelConfig", name="lstm").config.instance_group
    assert group.kind == {"KIND_GPU": 1, "KIND_CPU": 2}[kind]


def test_between_cpu_and_gpu_while_requests_flow(name: str, tmp_path: Path) -> None:
    pytest.importorskip("grpc_health", reason="the server needs grpcio-health-checking")
    real_model.write(tmp_path, usable(), name="lstm", config=CONFIG)
    flags = ("--model-control-mode", "explicit", "--load-model", "lstm", "--backend", name)
    with (
        LaunchedServer(tmp_path, *flags) as server,
        RawClient(server.address) as client,
        ClosedLoop(server.address, correctly()),
    ):
        for kind in ("KIND_GPU", "KIND_CPU") * 5:
            swap(client, name, kind)
        for backend in usable():
            swap(client, backend, "KIND_CPU")
            swap(client, name, "KIND_GPU")


def test_what_the_gpu_has_no_memory_for_is_computed_elsewhere(name: str, tmp_path: Path) -> None:
    """A batch that the rest of the memory cannot hold: its requests are answered by the next in the list, which is on the CPU."""
    pytest.importorskip("grpc_health", reason="the server needs grpcio-health-checking")
    wide = LSTMConfig(input="features", features=8, layers=2, hidden=64, outputs=2)
    real_model.write(tmp_path, (name,), name="lstm", config=wide)
    (tmp_path / "lstm" / "config.pbtxt").write_text(
        f'backend: "{name}" max_batch_size: 4096 instance_group {{ kind: KIND_GPU }}\n'
        f'parameters {{ key: "fallback" value {{ string_value: "{name}@cpu" }} }}'
    )
    flags = ("--max-steps", "100000", "--max-message-bytes", str(2**31 - 1))
    with LaunchedServer(tmp_path, *flags) as server, RawClient(server.address) as client, _nearly_full():
        x = np.zeros((256, 4000, 8), np.float32)
        request = pb.ModelInferRequest(model_name="lstm", raw_input_contents=[x.tobytes()])
        request.inputs.add(name="x", datatype="FP32", shape=x.shape)
        client.method("ModelInfer")(request, timeout=300)
        swaps = [line for line in server.metrics().splitlines() if line.startswith("lstm_serving_backend_swaps_total")]
    assert len(swaps) == 1
    assert 'reason="out_of_memory"' in swaps[0]


@contextmanager
def _nearly_full() -> Iterator[None]:
    """All but half a GiB of the GPU's memory is taken by this process."""
    torch = pytest.importorskip("torch", reason="takes the memory")
    free, _ = torch.cuda.mem_get_info()
    taken = torch.empty(max(0, free - 2**29), dtype=torch.uint8, device="cuda:0")
    try:
        yield
    finally:
        del taken
        torch.cuda.empty_cache()
