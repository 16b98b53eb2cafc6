"""Requests to models of a layout of their own: no rows at all, a value that all rows share, state as ordinary tensors."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from google.protobuf import text_format

from protos import grpc_service_pb2 as pb
from serving.batching.pending import Pending, whole
from serving.batching.plan import Take, plan
from serving.batching.policy import BatchPolicy
from serving.errors import InvalidInput, ModelConfigError, RepositoryError
from serving.protocol import codec
from serving.protocol.checks import Limits
from serving.protocol.request import InferRequest, from_protobuf
from serving.repository import config_in_force, model_config
from serving.signature.spec import ModelSpec, StatePair, TensorSpec
from serving.telemetry.timeline import Timeline
from tests.support.gated import Answer

LIMITS = Limits(max_rows=4, max_steps=10)
COMMON: dict[str, Any] = {
    "lengths": None,
    "streamable": True,
    "tolerance": 1e-5,
    "weights_sha256": "",
    "state_advertised": True,
}
SHARED = ModelSpec(
    inputs=(
        TensorSpec("x", "FP32", (-1, 3)),
        TensorSpec("state", "FP32", (-1, 2, 4), rows_axis=1),
        TensorSpec("rate", "INT64", (-1,), rows_axis=None),
    ),
    outputs=(TensorSpec("y", "FP32", (-1, 1)), TensorSpec("stateN", "FP32", (-1, 2, 4), rows_axis=1)),
    state=(StatePair("state", "stateN"),),
    **COMMON,
)
ALONE = ModelSpec(
    inputs=(TensorSpec("x", "FP32", (1, -1, 3), None), TensorSpec("gain", "FP32", (1,), None)),
    outputs=(TensorSpec("y", "FP32", (1, -1), None),),
    state=(),
    batched=False,
    **COMMON,
)


def request(**inputs: npt.NDArray[Any]) -> InferRequest:
    made = pb.ModelInferRequest(model_name="m")
    for name, array in inputs.items():
        made.inputs.add(name=name, datatype={"f": "FP32", "i": "INT64"}[array.dtype.kind], shape=array.shape)
        made.raw_input_contents.append(array.tobytes())
    return from_protobuf(made.SerializeToString())


def rows(count: int, rate: npt.NDArray[Any]) -> dict[str, npt.NDArray[Any]]:
    return {"x": np.ones((count, 3), np.float32), "state": np.zeros((count, 2, 4), np.float32), "rate": rate}


@pytest.mark.parametrize("shape", [(), (1,), (2,), (1, 1), (2, 1)])
def test_a_shared_value_may_come_once_or_for_every_row(shape: tuple[int, ...]) -> None:
    decoded = codec.decode(request(**rows(2, np.full(shape, 16000))), SHARED, LIMITS)
    assert decoded.inputs["rate"].tolist() == [16000, 16000]
    assert decoded.key[0] == np.int64(16000).tobytes()


@pytest.mark.parametrize(
    ("rate", "message"),
    [
        (np.array([[1], [2]]), "'rate' for model 'm' differs between rows, but the model takes one for all of them"),
        (np.array([1, 1, 1]), "batch size does not match other inputs"),
        (np.array([[1, 1]]), r"unexpected shape for input 'rate' for model 'm'. Expected \[-1,1\], got \[1,2\]"),
    ],
)
def test_shared_values_that_are_none(rate: npt.NDArray[Any], message: str) -> None:
    with pytest.raises(InvalidInput, match=message):
        codec.decode(request(**rows(2, rate)), SHARED, LIMITS)


def test_requests_that_differ_in_what_rows_share_are_never_batched() -> None:
    def pending(rate: int) -> Pending:
        decoded = codec.decode(request(**rows(1, np.array([rate]))), SHARED, LIMITS)
        return Pending(Answer(0), decoded.inputs, 1, decoded.steps, ["y"], decoded.key, Timeline(0))

    first, other, second = (pending(rate) for rate in (8000, 16000, 8000))
    assert plan([first, other, second], BatchPolicy(), 0) == Take([whole(first), whole(second)])


def test_the_state_is_made_of_ordinary_tensors() -> None:
    given = rows(1, np.array([1]))
    assert list(codec.decode(request(**given), SHARED, LIMITS).outputs) == ["y", "stateN"]
    del given["state"]
    with pytest.raises(InvalidInput, match=r"missing required input\(s\) \['state'\]"):
        codec.decode(request(**given), SHARED, LIMITS)


@pytest.mark.parametrize("gain", [np.float32(2), np.array([2], np.float32)])
def test_a_model_without_rows_takes_and_gives_the_shapes_of_its_file(gain: npt.NDArray[Any]) -> None:
    asked = request(x=np.ones((5, 3), np.float32), gain=np.asarray(gain))
    decoded = codec.decode(asked, ALONE, LIMITS)
    assert (decoded.rows, decoded.inputs["x"].shape, decoded.inputs["gain"].shape) == (1, (1, 5, 3), (1,))
    answer = pb.ModelInferResponse.FromString(
        codec.encode(asked, "1", ALONE, {"y": np.ones((1, 5), np.float32)}, {}, ())
    )
    assert list(answer.outputs[0].shape) == [5]
    best = codec.encode(asked, "1", ALONE, {"y": np.array([[1, 9, 3]], np.float32)}, {"y": 2}, ())
    assert list(pb.ModelInferResponse.FromString(best).outputs[0].shape) == [2]


def test_its_shapes_are_checked_as_the_client_sees_them() -> None:
    with pytest.raises(InvalidInput, match=r"Expected \[-1,3\], got \[5,4\]"):
        codec.decode(request(x=np.ones((5, 4), np.float32), gain=np.float32(1)), ALONE, LIMITS)
    with pytest.raises(InvalidInput, match="11 steps, but at most 10"):
        codec.decode(request(x=np.ones((11, 3), np.float32), gain=np.float32(1)), ALONE, LIMITS)


def test_their_configurations() -> None:
    shared = config_in_force.config_in_force(model_config.parse(None, "m"), SHARED, "onnx_runtime", "cpu", labels=False)
    assert shared.max_batch_size == 64
    assert [(i.name, list(i.dims), i.HasField("reshape")) for i in shared.input] == [
        ("x", [3], False),
        ("state", [2, 4], False),
        ("rate", [1], True),
    ]
    assert [(o.name, list(o.dims)) for o in shared.output] == [("y", [1]), ("stateN", [2, 4])]
    alone = config_in_force.config_in_force(model_config.parse(None, "m"), ALONE, "onnx_runtime", "cpu", labels=False)
    assert (alone.max_batch_size, alone.HasField("dynamic_batching")) == (0, False)
    assert [list(i.dims) for i in alone.input] == [[-1, 3], [1]]
    for spec, shown in ((SHARED, shared), (ALONE, alone)):
        again = model_config.parse(text_format.MessageToString(shown), "m")
        assert config_in_force.config_in_force(again, spec, "onnx_runtime", "cpu", labels=False) == shown


@pytest.mark.parametrize("text", ["max_batch_size: 8", "dynamic_batching {}"])
def test_batching_a_model_without_rows_is_refused(text: str) -> None:
    with pytest.raises(ModelConfigError, match="the model has no axis of rows: leave both out"):
        config_in_force.config_in_force(model_config.parse(text, "m"), ALONE, "onnx_runtime", "cpu", labels=False)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"inputs": (TensorSpec("x", "FP32", (-1, 3), 2),)}, "rows on axis 2, but 2 axes"),
        ({"batched": False}, "has no axis of rows, but"),
        ({"outputs": (TensorSpec("y", "FP32", (-1, 1), None),), "state": ()}, "nobody knows which row"),
        ({"inputs": (TensorSpec("x", "FP32", (-1, 3), None),), "state": ()}, "no input has an axis of rows"),
    ],
)
def test_specifications_that_contradict_themselves(change: dict[str, Any], message: str) -> None:
    with pytest.raises(RepositoryError, match=message):
        dataclasses.replace(SHARED, **change)


@pytest.mark.parametrize("spec", [SHARED, ALONE])
def test_they_survive_the_file(spec: ModelSpec, tmp_path: Any) -> None:
    (tmp_path / "spec.json").write_text(spec.to_json())
    assert ModelSpec.read(tmp_path / "spec.json") == spec
