"""The state after an uninterrupted run, and how far another is from it."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from google.protobuf import text_format

from loadtest.continuation import MOST_STEPS, StateTensor, distance, state_in, state_of, uninterrupted
from loadtest.errors import LoadTestError
from loadtest.step_messages import Message, Tensor
from protos import grpc_service_pb2 as pb
from protos import model_config_pb2 as pb_config

H = StateTensor("h0", "hn", "FP32", (1, 2))


def config(text: str) -> pb_config.ModelConfig:
    return text_format.Parse(text, pb_config.ModelConfig())


def test_the_state_is_what_the_server_says() -> None:
    state = 'state { input_name: "h0" output_name: "hn" data_type: TYPE_FP32 dims: 2 %s }'
    batched = f"max_batch_size: 8 sequence_batching {{ {state} }}"
    zeros = "initial_state { data_type: TYPE_FP32 dims: 2 zero_data: true }"
    assert state_of(config(batched % "")) == state_of(config(batched % zeros)) == (H,)
    assert state_of(config(f"sequence_batching {{ {state % ''} }}")) == (H._replace(shape=(2,)),)


@pytest.mark.parametrize(
    ("said", "why"),
    [
        (None, "tells no ModelConfig"),
        ("sequence_batching {}", "names no state"),
        (
            'sequence_batching { state { input_name: "h" data_type: TYPE_FP32 dims: 2 initial_state { data_file: "f" } } }',
            "what a fresh state 'h' holds is not told",
        ),
        ('sequence_batching { state { input_name: "h" data_type: TYPE_FP32 dims: -1 } }', "fresh state 'h'"),
        ('sequence_batching { state { input_name: "h" dims: 2 } }', "fresh state 'h'"),
    ],
)
def test_why_nothing_can_be_compared(said: str | None, why: str) -> None:
    with pytest.raises(LoadTestError, match=why):
        state_of(None if said is None else config(said))


class Summing:
    """Adds what every request brings to the state that it brings."""

    def __init__(self) -> None:
        self.requests: list[pb.ModelInferRequest] = []

    def __call__(self, request: pb.ModelInferRequest) -> pb.ModelInferResponse:
        self.requests.append(request)
        held = {
            tensor.name: np.frombuffer(raw, np.float32).reshape(tensor.shape)
            for tensor, raw in zip(request.inputs, request.raw_input_contents, strict=True)
        }
        return answer(hn=held["h0"] + held["x"].sum())


def answer(**outputs: Any) -> pb.ModelInferResponse:
    made = pb.ModelInferResponse()
    for name, array in outputs.items():
        made.outputs.add(name=name, datatype="FP32", shape=np.shape(array))
        made.raw_output_contents.append(np.asarray(array, np.float32).tobytes())
    return made


def messages(count: int, axis: int | None = 1, steps: int = 1) -> list[Message]:
    return [[Tensor("x", "FP32", np.full((1, steps, 1), number, np.float32), axis)] for number in range(count)]


def test_short_series_are_one_request_that_brings_a_fresh_state() -> None:
    ask = Summing()
    assert uninterrupted(messages(4), [H], ask, "m", "3")["hn"].tolist() == [[6, 6]]
    (request,) = ask.requests
    assert (request.model_name, request.model_version) == ("m", "3")
    assert [(tensor.name, list(tensor.shape)) for tensor in request.inputs] == [("x", [1, 4, 1]), ("h0", [1, 2])]
    assert request.raw_input_contents[1] == bytes(8)
    assert [output.name for output in request.outputs] == ["hn"]


@pytest.mark.parametrize("series", [messages(4, axis=None), messages(2, steps=MOST_STEPS // 2 + 1)])
def test_long_ones_and_those_without_steps_bring_the_state_along(series: list[Message]) -> None:
    ask = Summing()
    state = uninterrupted(series, [H], ask, "m", "")
    assert len(ask.requests) == len(series)
    assert state["hn"].tolist() == [[sum(float(message[0].array.sum()) for message in series)] * 2]


def test_an_answer_without_the_state_is_told() -> None:
    assert state_in(answer(y=1, hn=[[1, 2]]), [H])["hn"].tolist() == [[1, 2]]
    with pytest.raises(LoadTestError, match="the answer lacks the state 'hn'"):
        state_in(answer(y=1), [H])
    typed = pb.ModelInferResponse()
    typed.outputs.add(name="hn", datatype="FP32", shape=[1, 2]).contents.fp32_contents.extend([1, 2])
    with pytest.raises(LoadTestError, match="lacks the state"):
        state_in(typed, [H])


@pytest.mark.parametrize(
    ("got", "expected", "away"),
    [
        ([0.5], [0.5], 0),
        ([0.5], [0.75], 0.25),
        ([300.0], [200.0], 0.5),
        ([math.nan, math.inf], [math.nan, math.inf], 0),
        ([math.nan], [1.0], math.inf),
        ([1.0], [math.inf], math.inf),
        ([1.0, 2.0], [1.0], math.inf),
        ([], [], 0),
    ],
)
def test_how_far_a_state_is_from_another(got: list[float], expected: list[float], away: float) -> None:
    assert distance({"hn": np.array(got, np.float32)}, {"hn": np.array(expected, np.float32)}) == away


def test_whole_numbers_are_equal_or_not() -> None:
    assert distance({"n": np.array([3])}, {"n": np.array([3])}) == 0
    assert distance({"n": np.array([3])}, {"n": np.array([4])}) == math.inf


def test_the_furthest_of_several_counts() -> None:
    right = {"h": np.zeros(1, np.float32), "c": np.zeros(1, np.float32)}
    assert distance({**right, "c": np.full(1, 0.5, np.float32)}, right) == 0.5
