"""Requests to models of a layout of their own: no rows at all, a value that all rows share, state as ordinary tensors."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from protos import grpc_service_pb2 as pb
from serving.batching.pending import Pending, whole
from serving.batching.plan import Take, plan
from serving.batching.policy import BatchPolicy
from serving.errors import InvalidInput
from serving.protocol import codec
from serving.protocol.checks import Limits
from serving.protocol.request import InferRequest, from_protobuf
from serving.telemetry.timeline import Timeline
from tests.support.foreign_specs import ALONE, SHARED
from tests.support.gated import Answer

LIMITS = Limits(max_rows=4, max_steps=10)


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
        codec.encode("", "m", "1", ALONE, {"y": np.ones((1, 5), np.float32)}, {}, {})
    )
    assert list(answer.outputs[0].shape) == [5]
    best = codec.encode("", "m", "1", ALONE, {"y": np.array([[1, 9, 3]], np.float32)}, {"y": 2}, {})
    assert list(pb.ModelInferResponse.FromString(best).outputs[0].shape) == [2]


def test_its_shapes_are_checked_as_the_client_sees_them() -> None:
    with pytest.raises(InvalidInput, match=r"Expected \[-1,3\], got \[5,4\]"):
        codec.decode(request(x=np.ones((5, 4), np.float32), gain=np.float32(1)), ALONE, LIMITS)
    asked = request(x=np.ones((11, 3), np.float32), gain=np.float32(1))
    assert codec.decode(asked, ALONE, LIMITS).inputs["x"].shape == (1, 11, 3)  # nothing says that these are steps
