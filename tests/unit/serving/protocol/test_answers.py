"""Answers written by hand: the bytes that protobuf writes."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as some

from protos import grpc_service_pb2 as pb
from serving.protocol import answers, codec
from serving.protocol.answers import Answers, varint
from serving.signature.tensors import Tensors, TensorSpec
from tests.support.fake_models import spec

LABELS = {"y": ("left", "right")}
Y = np.arange(4, dtype=np.float32).reshape(2, 2)


@given(
    id=some.text(max_size=200).filter(lambda text: text.isprintable()),
    rows=some.integers(1, 200),
    names=some.lists(some.sampled_from(["y", "hn", "cn"]), unique=True, min_size=1),
)
def test_they_are_those_of_the_whole_encoding(id: str, rows: int, names: list[str]) -> None:
    shapes = {"y": (rows, 2), "hn": (rows, 1, 4), "cn": (rows, 1, 4)}
    outputs = {name: np.random.default_rng(0).normal(size=shapes[name]).astype(np.float32) for name in names}
    made = Answers("the model", "12", spec(), LABELS)
    expected = codec.encode(id, "the model", "12", spec(), outputs, {}, LABELS)
    assert made.encode(id, outputs, {}) == expected
    assert made.encode(id, outputs, {}) == expected, "the second time too"


@pytest.mark.parametrize(
    "outputs",
    [
        {"y": Y.astype(np.float64)},
        {"y": np.asfortranarray(Y)},
        {"y": np.repeat(Y, 2, axis=1)[:, ::2]},
    ],
    ids=["another datatype", "columns first", "every other element"],
)
def test_elements_go_as_the_specification_says(outputs: Tensors) -> None:
    answer = pb.ModelInferResponse.FromString(Answers("m", "1", spec(), {}).encode("", outputs, {}))
    np.testing.assert_array_equal(np.frombuffer(answer.raw_output_contents[0], np.float32).reshape(2, 2), Y)


@pytest.mark.parametrize(
    ("outputs", "classes"),
    [
        ((TensorSpec("y", "FP32", (-1, 2)),), {"y": 1}),
        ((TensorSpec("y", "FP32", (-1, 2), shown=(-1, 2, 1)),), {}),
    ],
    ids=["classes", "another shape for clients"],
)
def test_unusual_ones_are_encoded_whole(outputs: tuple[TensorSpec, ...], classes: dict[str, int]) -> None:
    model = dataclasses.replace(spec(), outputs=outputs, state=())
    expected = codec.encode("7", "m", "1", model, {"y": Y}, classes, LABELS)
    assert Answers("m", "1", model, LABELS).encode("7", {"y": Y}, classes) == expected


def test_what_is_kept_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(answers, "MOST_KINDS", 2)
    made = Answers("m", "1", spec(), {})
    for rows in (1, 2, 3, 4, 1, 4):
        outputs = {"y": np.zeros((rows, 2), np.float32)}
        assert made.encode("", outputs, {}) == codec.encode("", "m", "1", spec(), outputs, {}, {})


@pytest.mark.parametrize(
    ("number", "encoded"),
    [
        (0, b"\x00"),
        (1, b"\x01"),
        (127, b"\x7f"),
        (128, b"\x80\x01"),
        (300, b"\xac\x02"),
        (2**31, b"\x80\x80\x80\x80\x08"),
    ],
)
def test_varint(number: int, encoded: bytes) -> None:
    assert varint(number) == encoded
