"""What is packed comes back as it was, and whatever else is read is known as torn."""

from __future__ import annotations

import random
import zlib
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from serving.sequences import records
from serving.sequences.policy import StateLayout, StateTensor
from serving.sequences.records import Kept, Torn
from serving.sequences.step import Key

LAYOUT = StateLayout(
    [
        StateTensor("h0", "hn", np.dtype("<f4"), (2, 3), np.zeros((2, 3), "<f4")),
        StateTensor("count", "next", np.dtype("<i8"), (), np.zeros((), "<i8")),
    ],
    "ab" * 32,
)
STATES = {"h0": np.arange(6, dtype="<f4").reshape(1, 2, 3), "count": np.array([7])}
ANSWERS = (Kept.of(3, b"digest", b"outputs!", b"what was answered"), Kept.of(4, b"", b"", b""))


def packed(
    key: Key = ("", 7),
    *,
    ended: bool = False,
    answers: Sequence[Kept] = ANSWERS,
    numbered: bool = True,
    nonce: bytes = b"n",
) -> bytes:
    state = b"" if ended else b"".join([STATES[tensor.input].tobytes() for tensor in LAYOUT.tensors])
    origin = records.origin_of("12", LAYOUT)
    return records.pack(
        origin,
        key,
        99,
        5,
        1_700_000_000_000_000_000,
        numbered=numbered,
        ended=ended,
        nonce=nonce,
        state=state,
        answers=answers,
    )


@pytest.mark.parametrize(
    "key", [("", 7), ("", "7"), ("somebody", 2**64 - 1), ("an ünïcode caller", "an ïd"), ("", -1), ("", "\ud800")]
)
def test_what_is_packed_comes_back(key: Key) -> None:
    record = records.unpack(packed(key))
    assert (record.key, record.epoch, record.taken, record.at_ns) == (key, 99, 5, 1_700_000_000_000_000_000)
    assert (record.numbered, record.ended, record.nonce, record.answers) == (True, False, b"n", ANSWERS)
    assert (record.origin.version, record.origin.weights_sha256) == ("12", "ab" * 32)
    assert dict(record.origin.shapes) == dict(LAYOUT.shapes)
    assert [answer.outputs for answer in record.answers] == [b"what was answered", b""]
    states = record.states()
    assert all(
        np.array_equal(states[name], array[0]) and states[name].dtype == array.dtype for name, array in STATES.items()
    )


def test_of_one_that_has_ended_there_is_no_state() -> None:
    record = records.unpack(packed(ended=True, answers=(), numbered=False, nonce=b""))
    assert (record.ended, record.state, record.answers, record.numbered, record.nonce) == (True, b"", (), False, b"")


def test_every_cut_and_every_flipped_bit_is_known() -> None:
    whole = packed()
    for length in range(len(whole)):
        with pytest.raises(Torn):
            records.unpack(whole[:length])
    for place in range(8 * len(whole)):
        torn = bytearray(whole)
        torn[place // 8] ^= 1 << place % 8
        with pytest.raises(Torn):
            records.unpack(bytes(torn))
    with pytest.raises(Torn):
        records.unpack(whole + b"\0")


def test_another_format_is_called_by_its_number() -> None:
    other = bytearray(packed())
    other[4] = 9
    other[:4] = zlib.crc32(other[4:]).to_bytes(4, "little")
    with pytest.raises(Torn, match="its format is 9, and 1 is read here"):
        records.unpack(bytes(other))


def test_keys_that_look_alike_have_other_numbers() -> None:
    keys: list[Key] = [("", 7), ("", "7"), ("7", ""), ("", "a b"), ("b", "a"), ("b ", "a"), ("a', '", "")]
    numbers = {records.number_of(key) for key in keys}
    assert len(numbers) == len(keys)
    assert all(0 <= number < 2**63 for number in numbers)


@pytest.mark.parametrize(
    "outputs",
    [
        {},
        {
            "y": np.array([[1.5, np.nan]], "<f4"),
            "n": np.array([[2**60]]),
            "b": np.array([[True]]),
            "h": np.ones((1, 2), "f2"),
        },
        {"words": np.array([[b"", b"\0a", "é".encode()]], object)},
        {"none": np.zeros((1, 0, 4), "f4"), "scalar": np.array(3.0)},
    ],
    ids=["nothing", "numbers", "texts", "empty"],
)
def test_outputs_come_back(outputs: dict[str, Any]) -> None:
    back = records.unpack_outputs(records.pack_outputs(outputs))
    assert list(back) == list(outputs)
    for name, array in outputs.items():
        assert (back[name].dtype, back[name].shape) == (array.dtype, array.shape)
        assert back[name].tolist() == array.tolist() or np.array_equal(back[name], array, equal_nan=True)


def test_outputs_of_others_are_refused() -> None:
    whole = records.pack_outputs({"y": np.ones((1, 3), "f4")})
    draw = random.Random(1)
    for length in draw.sample(range(1, len(whole)), len(whole) // 2):
        with pytest.raises(Torn):
            records.unpack_outputs(whole[:length])
