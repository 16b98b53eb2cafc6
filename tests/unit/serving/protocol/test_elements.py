"""The elements of a tensor, from both encodings of a request and into an answer."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from serving.errors import InvalidInput, InvalidRequest, ServingError
from serving.protocol.elements import bytes_of, elements
from serving.protocol.request import InferRequest, InferTensor
from serving.signature.tensors import DTYPES, TensorSpec

BF16_ONES = np.array([(0x3F80,), (0x3F80,)], DTYPES["BF16"])
# Two elements of each datatype, and the typed field that holds them; None where they travel raw only.
SAMPLES: dict[str, tuple[npt.NDArray[Any], str | None]] = {
    "BOOL": (np.array([True, False]), "bool_contents"),
    "UINT8": (np.array([0, 255], "<u1"), "uint_contents"),
    "UINT16": (np.array([0, 65_535], "<u2"), "uint_contents"),
    "UINT32": (np.array([0, 2**32 - 1], "<u4"), "uint_contents"),
    "UINT64": (np.array([0, 2**64 - 1], "<u8"), "uint64_contents"),
    "INT8": (np.array([-128, 127], "<i1"), "int_contents"),
    "INT16": (np.array([-32_768, 32_767], "<i2"), "int_contents"),
    "INT32": (np.array([-(2**31), 2**31 - 1], "<i4"), "int_contents"),
    "INT64": (np.array([-(2**63), 2**63 - 1], "<i8"), "int64_contents"),
    "FP16": (np.array([0.5, -2], "<f2"), None),
    "FP32": (np.array([0.5, np.inf], "<f4"), "fp32_contents"),
    "FP64": (np.array([0.5, 1e300], "<f8"), "fp64_contents"),
    "BF16": (BF16_ONES, None),
    "BYTES": (np.array([b"a\x00\xff", b""], object), "bytes_contents"),
}


def read(
    datatype: str,
    shape: tuple[int, ...] = (2,),
    raw: bytes | None = None,
    contents: dict[str, Any] | None = None,
    raw_count: int | None = None,
) -> npt.NDArray[Any]:
    sent = InferTensor("x", datatype, shape, raw=raw, contents=contents)
    count = int(raw is not None) if raw_count is None else raw_count
    return elements(sent, InferRequest("m", "", "", [sent], raw_count=count), TensorSpec("x", datatype, (-1,)), shape)


def test_there_is_a_sample_of_every_datatype() -> None:
    assert set(SAMPLES) == set(DTYPES)


@pytest.mark.parametrize("datatype", SAMPLES)
def test_raw_elements_come_back_as_they_went(datatype: str) -> None:
    array, _ = SAMPLES[datatype]
    got = read(datatype, (2, 1), raw=bytes_of(array))
    assert got.shape == (2, 1)
    assert got.dtype == DTYPES[datatype]
    assert got.ravel().tolist() == array.tolist()
    assert bytes_of(got) == bytes_of(array)


@pytest.mark.parametrize("datatype", [name for name, (_, field) in SAMPLES.items() if field])
def test_typed_elements_are_the_same_as_raw_ones(datatype: str) -> None:
    array, field = SAMPLES[datatype]
    got = read(datatype, (1, 2), contents={str(field): array.tolist()})
    assert (got.shape, got.dtype) == ((1, 2), DTYPES[datatype])
    assert bytes_of(got) == bytes_of(array)


def test_raw_elements_are_a_view_of_the_request() -> None:
    raw = bytes_of(SAMPLES["FP32"][0])
    assert not read("FP32", raw=raw).flags.owndata


@pytest.mark.parametrize(
    ("error", "said", "asked"),
    [
        (InvalidInput, r"byte size mismatch .* Expected 8, got 7$", {"datatype": "FP32", "raw": bytes(7)}),
        (InvalidInput, r"byte size mismatch .* Expected 0, got 4$", {"datatype": "FP32", "shape": (0,), "raw": bytes(4)}),
        (InvalidInput, "expected 2 string elements, got 1", {"datatype": "BYTES", "raw": bytes(4)}),
        (InvalidInput, "unable to find data for input tensor 'x'", {"datatype": "FP32", "raw_count": 1}),
        (InvalidInput, "unable to find data for input tensor 'x'", {"datatype": "FP32"}),
        (InvalidInput, "unable to find data for input tensor 'x'", {"datatype": "FP32", "contents": {}}),
        (InvalidRequest, "contents field must not be specified when using raw_input_contents for 'x'",
         {"datatype": "FP32", "raw": bytes(8), "contents": {}}),
        (InvalidInput, "FP16 travels in raw_input_contents only", {"datatype": "FP16", "contents": {"fp32_contents": [1]}}),
        (InvalidInput, "BF16 travels in raw_input_contents only", {"datatype": "BF16", "contents": {"fp32_contents": [1]}}),
        (InvalidInput, "fp64_contents; FP32 travels in fp32_contents",
         {"datatype": "FP32", "contents": {"fp64_contents": [1, 2]}}),
        (InvalidInput, "fp32_contents, int_contents; FP32 travels in fp32_contents",
         {"datatype": "FP32", "contents": {"fp32_contents": [1, 2], "int_contents": [1, 2]}}),
        (InvalidInput, r"Expected 2 elements, got 3$", {"datatype": "FP32", "contents": {"fp32_contents": [1, 2, 3]}}),
        (InvalidInput, "holds 256, which is outside the range of UINT8",
         {"datatype": "UINT8", "contents": {"uint_contents": [255, 256]}}),
        (InvalidInput, "holds -129, which is outside the range of INT8",
         {"datatype": "INT8", "contents": {"int_contents": [-129, 0]}}),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_refused(error: type[ServingError], said: str, asked: dict[str, Any]) -> None:
    with pytest.raises(error, match=said) as raised:
        read(**asked)
    assert "'m'" in str(raised.value)


@pytest.mark.parametrize(
    ("array", "raw"),
    [
        (np.array([[1, 2], [3, 4]], "<i2"), b"\1\0\2\0\3\0\4\0"),
        (np.array([[1, 2], [3, 4]], "<i2").T, b"\1\0\3\0\2\0\4\0"),
        (np.array([[b"a"], [b""]], object), b"\1\0\0\0a\0\0\0\0"),
        (np.zeros((0, 2), "<f4"), b""),
    ],
)
def test_an_answer_travels_in_rows(array: npt.NDArray[Any], raw: bytes) -> None:
    assert bytes_of(array) == raw
