"""Servers behind Envoy, as `deploy/envoy/sequences.yaml` has it: a sequence stays with the server that keeps its state."""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
import yaml

from models.config import LSTMConfig
from serving.launch import LaunchedServer
from tests.support import artefacts, envoy, oracle, real_model
from tests.support.commands import ROOT
from tests.support.running import metric
from tests.support.stepping import Array, answered, step
from tests.support.wire import RawClient, refusal

SHIPPED = yaml.safe_load((ROOT / "deploy/envoy/sequences.yaml").read_text())
SEQUENCES, PIECES, STEPS = 16, 4, 20
EACH_STEP = LSTMConfig(input="features", features=3, hidden=4, outputs=2, head="values_per_step")


@pytest.fixture(scope="module")
def replicas(tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[LaunchedServer]]:
    folder = tmp_path_factory.mktemp("repository")
    real_model.write(folder, ("onnx_runtime",), name="m", config=EACH_STEP)
    with contextlib.ExitStack() as stack:
        flags = ("--backend", "onnx_runtime", "--stateful", "m")
        yield [stack.enter_context(LaunchedServer(folder, *flags)) for _ in range(2)]


@pytest.fixture
def front(replicas: list[LaunchedServer], envoy_program: Path, tmp_path: Path) -> Iterator[str]:
    """What is shipped, in front of servers on this machine."""
    made: dict[str, Any] = copy.deepcopy(SHIPPED)
    (listener,), (cluster,) = made["static_resources"]["listeners"], made["static_resources"]["clusters"]
    (only,) = cluster["load_assignment"]["endpoints"]
    listener["address"], cluster["type"] = envoy.ANY_PORT, "STATIC"
    only["lb_endpoints"] = [
        {"endpoint": {"address": {"socket_address": {"address": host, "port_value": int(port)}}}}
        for host, _, port in (server.address.rpartition(":") for server in replicas)
    ]
    with envoy.running(envoy_program, tmp_path, made) as address:
        yield address


def recorded(number: int) -> Array:
    return np.random.default_rng(number).normal(size=(1, STEPS, 3)).astype(np.float32)


def piece(number: int, place: int) -> Any:
    said = {"sequence_id": f"s{number}", "sequence_start": place == 0, "sequence_end": place == PIECES - 1}
    each = STEPS // PIECES
    return step("m", recorded(number)[:, place * each : (place + 1) * each], **said)


def test_a_sequence_that_is_named_in_the_metadata_stays_with_its_server(
    replicas: list[LaunchedServer], front: str
) -> None:
    before = [metric(server, "sequences_started_total") for server in replicas]
    parts: list[list[Array]] = [[] for _ in range(SEQUENCES)]
    for place in range(PIECES):
        with RawClient(front) as client:  # another connection each time
            for number, its in enumerate(parts):
                metadata = [("sequence-id", f"s{number}")]
                its.append(
                    answered(client.method("ModelInfer")(piece(number, place), timeout=30, metadata=metadata))["y"]
                )
    state = np.zeros((1, 1, 4), np.float32)
    for number, its in enumerate(parts):
        inputs = {"x": recorded(number), "lengths": np.array([STEPS]), "h0": state, "c0": state}
        whole = oracle.predict(EACH_STEP, artefacts.weights(EACH_STEP), inputs)["y"]
        np.testing.assert_allclose(np.concatenate(its, axis=1), whole, rtol=1e-5, atol=1e-5)
    begun = [metric(server, "sequences_started_total") - was for server, was in zip(replicas, before, strict=True)]
    assert sum(begun) == SEQUENCES
    assert min(begun) > 0, "one server had them all, so nothing was shown"


def test_without_that_it_comes_to_a_server_that_does_not_know_it(front: str) -> None:
    def ask() -> None:
        with RawClient(front) as client:
            for number in range(SEQUENCES):
                for place in range(PIECES):
                    client.method("ModelInfer")(piece(number, place), timeout=30)

    code, said = refusal(ask)
    assert (code, "must specify the START flag" in said) == (grpc.StatusCode.INVALID_ARGUMENT, True)
