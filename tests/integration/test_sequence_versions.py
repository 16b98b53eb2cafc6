"""What becomes of the sequences of a version that goes: they drain, start anew, or are carried over, as the operator has said."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import grpc
import numpy as np
import pytest

from models.config import LSTMConfig
from serving.launch import LaunchedServer
from serving.signature.spec import ModelSpec
from tests.support import artefacts, real_model
from tests.support.running import metric, until
from tests.support.stepping import Array, answered, step
from tests.support.wire import RawClient, refusal

CONFIG = LSTMConfig(input="features", features=3, layers=2, hidden=artefacts.HIDDEN, outputs=4, head="values_per_step")
X = np.random.default_rng(0).normal(0, 1, (1, 40, 3)).astype(np.float32)


@contextmanager
def begun(folder: Path, rule: str, *, other_weights: bool = False) -> Iterator[tuple[LaunchedServer, RawClient, Array]]:
    """A server whose version 2 has just taken the place of 1, on which sequence 7 has taken 10 steps; the whole answer of 1."""
    version, *_ = real_model.write(folder, ["onnx_runtime"], name="m", config=CONFIG)
    (version.parent / "config.pbtxt").write_text(
        f'sequence_batching {{}} parameters {{ key: "sequence_on_removal" value {{ string_value: "{rule}" }} }}'
    )
    flags = ("--backend", "onnx_runtime", "--model-control-mode", "explicit", "--load-model", "*")
    with LaunchedServer(folder, *flags) as server, RawClient(server.address) as client:
        ask = client.method("ModelInfer")
        whole = answered(ask(step("m", X, sequence_id=1, sequence_start=True, sequence_end=True)))["y"]
        ask(step("m", X[:, :10], sequence_id=7, sequence_start=True))
        second = version.parent / "2"
        shutil.copytree(version, second)
        if other_weights:
            spec = second / "spec.json"
            assert ModelSpec.read(spec).weights_sha256
            spec.write_text(spec.read_text().replace(ModelSpec.read(spec).weights_sha256, "0" * 64))
        client.load("m")
        yield server, client, whole


def test_they_drain_on_their_version_and_new_ones_begin_on_the_next(tmp_path: Path, edge: str) -> None:
    with begun(tmp_path, "drain") as (server, client, whole):
        ask = client.method("ModelInfer")
        new = ask(step("m", X[:, :5], sequence_id=8, sequence_start=True))
        assert new.model_version == "2"
        named = step("m", X[:, 10:20], sequence_id=7)
        named.model_version = "2"
        code, said = refusal(lambda: ask(named))
        assert (code, "goes on in version 1" in said) == (grpc.StatusCode.INVALID_ARGUMENT, True), said
        assert refusal(lambda: ask(step("m", X[:, 10:20], sequence_id=7)))[0] is grpc.StatusCode.ABORTED, "once"
        rest = ask(step("m", X[:, 10:], sequence_id=7, sequence_end=True))
        assert rest.model_version == "1"
        np.testing.assert_array_equal(answered(rest)["y"], whole[:, 10:])
        until(lambda: "m/1" not in client.index())
        assert metric(server, "sequences_live", version="2") == 1


def test_they_are_ended_and_their_clients_told(tmp_path: Path, edge: str) -> None:
    with begun(tmp_path, "restart") as (_, client, _):
        ask = client.method("ModelInfer")
        until(lambda: "m/1" not in client.index())
        code, said = refusal(lambda: ask(step("m", X[:, 10:], sequence_id=7)))
        assert code is grpc.StatusCode.INVALID_ARGUMENT
        assert (
            "must specify the START flag on the first request of the sequence: its version of the model has gone"
            in said
        )
        assert ask(step("m", X, sequence_id=7, sequence_start=True)).model_version == "2"


@pytest.mark.parametrize(
    ("rule", "other_weights", "carried"),
    [
        ("carry_same_weights", False, True),
        ("carry_same_weights", True, False),
        ("carry_same_shapes", True, True),
    ],
)
def test_they_are_carried_over_where_what_was_asked_for_agrees(
    tmp_path: Path, edge: str, rule: str, other_weights: bool, carried: bool
) -> None:
    with begun(tmp_path, rule, other_weights=other_weights) as (_, client, whole):
        ask = client.method("ModelInfer")
        until(lambda: "m/1" not in client.index())
        if carried:
            rest = ask(step("m", X[:, 10:], sequence_id=7, sequence_end=True))
            assert rest.model_version == "2"
            np.testing.assert_array_equal(answered(rest)["y"], whole[:, 10:])
        else:
            assert refusal(lambda: ask(step("m", X[:, 10:], sequence_id=7)))[0] is grpc.StatusCode.INVALID_ARGUMENT


def test_a_canary_gets_whole_sequences(tmp_path: Path, edge: str) -> None:
    version, *_ = real_model.write(tmp_path, ["onnx_runtime"], name="m", config=CONFIG)
    shutil.copytree(version, version.parent / "2")
    keys = {"version_labels": "stable=1,canary=2", "canary_share": "0.25"}
    parameters = " ".join(
        f'parameters {{ key: "{key}" value {{ string_value: "{value}" }} }}' for key, value in keys.items()
    )
    (version.parent / "config.pbtxt").write_text(f"sequence_batching {{}} version_policy {{ all {{}} }} {parameters}")
    dealt: list[str] = []
    with LaunchedServer(tmp_path, "--backend", "onnx_runtime") as server, RawClient(server.address) as client:
        ask = client.method("ModelInfer")
        for id in range(1, 41):
            versions = {
                ask(step("m", X[:, :2], sequence_id=id, sequence_start=at == 0, sequence_end=at == 3)).model_version
                for at in range(4)  # as many as one in four, so that a deal for each step would show
            }
            assert len(versions) == 1, "a sequence went on elsewhere"
            dealt += versions
        assert dealt.count("2") == 10
        for id in range(100, 104):
            begin = step("m", X[:, :2], sequence_id=id, sequence_start=True, sequence_step=0, sequence_nonce=id)
            first = ask(begin)
            assert all(ask(begin) == first for _ in range(3)), "a START that comes again is dealt once"
