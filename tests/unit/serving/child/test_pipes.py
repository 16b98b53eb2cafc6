"""What goes over the pipes comes out as it went in, in whatever portions, and nothing else does."""

from __future__ import annotations

import ast
import sys
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from serving.child import pipes
from serving.child.pipes import MAGIC, Reader, packed
from serving.signature.tensors import DTYPES

SAMPLES = {
    name: np.array([[b"", b"two"], [b"\x00\xff", b"4"]], object)
    if name == "BYTES"
    else np.arange(4, dtype="<u2").view(dtype).reshape(2, 2)
    if name == "BF16"
    else np.array([[0, 1], [1, 0]], dtype)
    for name, dtype in DTYPES.items()
}


def over(*pieces: bytes | memoryview, portion: int = 10**9) -> list[pipes.Message]:
    data = b"".join(bytes(piece) for piece in pieces)
    reader = Reader()
    return [message for at in range(0, len(data), portion) for message in reader.feed(data[at : at + portion])]


def same(got: npt.NDArray[Any], sent: npt.NDArray[Any]) -> bool:
    return got.dtype == sent.dtype and got.shape == sent.shape and got.tolist() == sent.tolist()


@pytest.mark.parametrize("portion", [1, 7, 10**9])
def test_every_datatype_and_shape_comes_out_as_it_went_in(portion: int) -> None:
    arrays = {
        **SAMPLES,
        "none": np.zeros((0, 3), np.float32),
        "scalar": np.float64(2.5) * np.ones(()),
        "strided": np.arange(12.0).reshape(3, 4)[::2, ::-1],
        "no strings": np.empty((0,), object),
    }
    header = {"a": [1, None, "ä"], "b": {"c": 0.5}}
    (message,) = over(*packed(header, arrays), portion=portion)
    assert message.header == header
    assert message.kind == ""
    assert [name for name, sent in arrays.items() if not same(message.arrays[name], sent)] == []


def test_messages_follow_each_other_and_keep_their_kind() -> None:
    pieces = [*packed(1), *packed(None, {"x": np.ones(3)}, "told"), *packed("last")]
    assert [(one.header, one.kind, list(one.arrays)) for one in over(*pieces, portion=11)] == [
        (1, "", []),
        (None, "told", ["x"]),
        ("last", "", []),
    ]


def test_what_stands_in_front_of_a_message_is_noise() -> None:
    heard: list[bytes] = []
    reader = Reader(heard.append)
    data = b"a banner\n" + MAGIC[:3] + b" and more" + b"".join(map(bytes, packed(7)))
    assert [message.header for at in range(len(data)) for message in reader.feed(data[at : at + 1])] == [7]
    assert b"".join(heard) == b"a banner\n" + MAGIC[:3] + b" and more"


def test_what_cannot_be_sent_is_refused() -> None:
    with pytest.raises(TypeError, match="not JSON serializable"):
        packed({1, 2})
    with pytest.raises(TypeError, match="which is not sent"):
        packed(None, {"x": np.empty(2, [("a", object)])})


def _message(text: str, body: bytes = b"") -> bytes:
    return MAGIC + pipes._LENGTHS.pack(len(text), len(body)) + text.encode() + body


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (MAGIC + pipes._LENGTHS.pack(pipes.MOST_HEADER_BYTES + 1, 0), "is not read"),
        (MAGIC + pipes._LENGTHS.pack(2, pipes.MOST_BYTES + 1), "is not read"),
        (_message("{"), "Expecting"),
        (_message('{"header": 1, "arrays": [["x", "<f4", [2]]]}', b"1234"), "does not fit"),
        (_message('{"header": 1, "arrays": [["x", "<f4", [-2]]]}', b""), "has the shape"),
        (_message('{"header": 1, "arrays": [["x", "|O", [1]]]}', b"12345678"), "does not fit"),
        (_message('{"header": 1, "arrays": [["x", "bytes", [2]]]}', b"\x01\0\0\0a\x09\0\0\0b"), "longer than"),
        (_message('{"header": 1, "arrays": [["x", "bytes", [4000000000]]]}', b""), "strings do not fit"),
        (_message('{"header": 1, "arrays": []}', b"1"), "belong to no array"),
    ],
)
def test_what_is_no_message_is_refused(data: bytes, why: str) -> None:
    with pytest.raises(ValueError, match=why):
        over(data)


def test_it_needs_nothing_but_the_standard_library_and_numpy() -> None:
    """It is run by its path where nothing of ours can be imported."""
    tree = ast.parse(Path(pipes.__file__).read_text(encoding="utf-8"))
    imported = {
        name.split(".")[0]
        for node in ast.walk(tree)
        if isinstance(node, ast.Import | ast.ImportFrom)
        for name in ([node.module or ""] if isinstance(node, ast.ImportFrom) else [alias.name for alias in node.names])
    }
    assert imported - sys.stdlib_module_names == {"numpy"}
