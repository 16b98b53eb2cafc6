"""Series of steps, random or from a file, cut into messages, and the bytes that are sent of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from loadtest import step_messages
from loadtest.errors import UsageError
from loadtest.step_messages import Message, Tensor, TensorMetadata
from protos import grpc_service_pb2 as pb

X = ("x", "FP32", [-1, -1, 2])


def metadata(*tensors: tuple[str, str, list[int]]) -> list[TensorMetadata]:
    return [TensorMetadata(name=name, datatype=datatype, shape=shape) for name, datatype, shape in tensors]


def random(*tensors: tuple[str, str, list[int]], **changes: Any) -> list[Sequence[Message]]:
    options: dict[str, Any] = {"steps": 3, "step_size": 1, "shapes": {}, "token_limit": 10, "seed": 0, "count": 2}
    return step_messages.random_messages(metadata(*tensors), **{**options, **changes})


def from_file(
    folder: Path, arrays: Mapping[str, Any], *tensors: tuple[str, str, list[int]], **changes: Any
) -> list[list[dict[str, Any]]]:
    """The arrays of each message of each series."""
    np.savez(folder / "d.npz", **{name: np.asarray(array, np.float32) for name, array in arrays.items()})
    options = {"steps": None, "step_size": 1, **changes}
    found = step_messages.messages_from_file(folder / "d.npz", metadata(*tensors), **options)
    return [[{tensor.name: tensor.array.tolist() for tensor in message} for message in series] for series in found]


def test_random_series_are_cut_along_their_steps() -> None:
    first, second = random(X, steps=3, step_size=2)
    assert [[tensor.array.shape for tensor in message] for message in first] == [[(1, 2, 2)]] * 3
    values = [message[0].array.tobytes() for series in (first, second) for message in series]
    assert len(set(values)) == 6
    assert [message[0].array.tobytes() for message in random(X, steps=3, step_size=2)[0]] == values[:3]


def test_what_has_no_steps_is_the_same_in_every_message_of_a_series() -> None:
    (first, _) = random(X, ("rate", "INT64", [-1, 1]))
    assert len({message[1].array.tobytes() for message in first}) == 1
    assert first[0][1].steps_axis is None
    assert first[0][0].steps_axis == 1


def test_where_nothing_has_steps_each_message_holds_values_of_its_own() -> None:
    (first, _) = random(("x", "FP32", [-1, 4]))
    assert [message[0].array.shape for message in first] == [(1, 4)] * 3
    assert len({message[0].array.tobytes() for message in first}) == 3
    with pytest.raises(UsageError, match="no input of the model has a free axis of steps; --step-size 2 does not fit"):
        random(("x", "FP32", [-1, 4]), step_size=2)


def test_a_shape_says_the_other_sizes_and_names_an_input_of_a_step() -> None:
    ((message, *_), _) = random(("x", "FP32", [-1, -1, -1]), shapes={"x": (9, 5)}, step_size=2)
    assert message[0].array.shape == (1, 2, 5), "the steps are those of a message"
    with pytest.raises(UsageError, match="--shape names 'z'; the inputs of a step are x"):
        random(X, shapes={"z": (1,)})


def test_numbered_series_of_a_file_each_of_its_own_length(tmp_path: Path) -> None:
    arrays = {"1": [[9, 9]], "0": [[1, 2], [3, 4], [5, 6]]}
    long, short = from_file(tmp_path, arrays, X, step_size=2)
    assert long == [{"x": [[[1, 2], [3, 4]]]}, {"x": [[[5, 6]]]}], "the last message may be shorter"
    assert short == [{"x": [[[9, 9]]]}]
    assert [len(series) for series in from_file(tmp_path, arrays, X, steps=2)] == [2, 1]


def test_rows_of_named_arrays_are_series(tmp_path: Path) -> None:
    arrays = {"x": [[[1, 2], [3, 4]], [[5, 6], [7, 8]]], "rate": [[16], [8]], "more": [0]}
    first, second = from_file(tmp_path, arrays, X, ("rate", "FP32", [-1, 1]))
    assert first == [{"x": [[[1, 2]]], "rate": [[16]]}, {"x": [[[3, 4]]], "rate": [[16]]}]
    assert second[1] == {"x": [[[7, 8]]], "rate": [[8]]}


def test_where_nothing_has_steps_the_rows_are_the_messages_of_a_long_series(tmp_path: Path) -> None:
    chunks = ("x", "FP32", [-1, 2])
    rows = [[number, number] for number in range(5)]
    assert from_file(tmp_path, {"x": rows}, chunks) == [[{"x": [row]} for row in rows]]
    cut = from_file(tmp_path, {"x": rows}, chunks, steps=2)
    assert cut == [[{"x": [rows[0]]}, {"x": [rows[1]]}], [{"x": [rows[2]]}, {"x": [rows[3]]}]]
    assert from_file(tmp_path, {"0": rows, "1": rows[:1]}, chunks, steps=2) == [
        [{"x": [rows[0]]}, {"x": [rows[1]]}],
        [{"x": [rows[0]]}],
    ]


@pytest.mark.parametrize(
    ("arrays", "tensors", "sentence"),
    [
        (
            {"0": [[1, 2]]},
            (X, ("r", "FP32", [-1, 1])),
            "holds numbered sequences, for models of one input; .* has x, r",
        ),
        ({"y": [[[1, 2]]]}, (X,), "has no array 'x'; it has y"),
        ({"x": [[[1, 2]]], "r": [[1], [2]]}, (X, ("r", "FP32", [-1, 1])), "the same number of rows in every array"),
        ({"x": np.zeros((0, 2, 2))}, (X,), "at least one; it has {'x': 0}"),
        ({"0": [1, 2]}, (X,), r"array '0' makes messages of 2 axes, .* x has \[-1, -1, 2\]"),
        ({"0": np.zeros((0, 2))}, (X,), "series 0 has no step"),
        (
            {"x": [[[1, 2]]]},
            (("x", "INT64", [-1, -1, 2]),),
            "array 'x' is float32, which does not go into the model's INT64",
        ),
    ],
)
def test_files_that_do_not_fit(
    arrays: Mapping[str, Any], tensors: tuple[tuple[str, str, list[int]], ...], sentence: str, tmp_path: Path
) -> None:
    with pytest.raises(UsageError, match=sentence):
        from_file(tmp_path, arrays, *tensors)


def test_a_message_is_the_inputs_and_the_last_one_asks_for_outputs() -> None:
    messages = [[Tensor("x", "FP32", np.full((1, 1, 2), number, np.float32), 1)] for number in (1, 2)]
    made = step_messages.series_of(messages, ["y", "hn"])
    first, last = (pb.ModelInferRequest.FromString(each) for each in made.sent)
    assert (list(first.outputs), [output.name for output in last.outputs]) == ([], ["y", "hn"])
    assert (last.inputs[0].name, list(last.inputs[0].shape)) == ("x", [1, 1, 2])
    assert np.frombuffer(last.raw_input_contents[0], np.float32).tolist() == [2, 2]


@pytest.mark.parametrize(
    ("value", "kind"), [(True, "bool_param"), (0, "int64_param"), (2**62, "int64_param"), ("a", "string_param")]
)
def test_parameters_are_joined_to_a_message(value: bool | int | str, kind: str) -> None:
    message = step_messages.parameter("other", 1) + step_messages.parameter("mine", value)
    request = pb.ModelInferRequest.FromString(message + step_messages.encoded([]))
    assert getattr(request.parameters["mine"], kind) == value
    assert request.parameters["mine"].WhichOneof("parameter_choice") == kind
    assert len(request.parameters) == 2
