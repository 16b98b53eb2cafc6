"""Requests made from metadata and from files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from loadtest import inputs
from loadtest.errors import UsageError
from protos import grpc_service_pb2 as pb


def metadata(**tensors: tuple[str, list[int]]) -> pb.ModelMetadataResponse:
    made = pb.ModelMetadataResponse(name="m")
    for name, (datatype, shape) in tensors.items():
        made.inputs.add(name=name, datatype=datatype, shape=shape)
    return made


def random(model: pb.ModelMetadataResponse, **changes: Any) -> list[pb.ModelInferRequest]:
    options: dict[str, Any] = {"rows": 1, "shapes": {}, "token_limit": 10, "seed": 0, "count": 2, **changes}
    return [pb.ModelInferRequest.FromString(made) for made in inputs.random_requests(model, "3", **options)]


def from_file(path: Path, model: pb.ModelMetadataResponse, rows: int = 1) -> list[pb.ModelInferRequest]:
    return [pb.ModelInferRequest.FromString(made) for made in inputs.requests_from_file(path, model, "", rows=rows)]


X = metadata(x=("FP32", [-1, -1, 12]))


def test_a_free_size_is_24_unless_it_is_said() -> None:
    (first, second) = random(X, rows=2)
    assert (first.model_name, first.model_version) == ("m", "3")
    assert list(first.inputs[0].shape) == [2, 24, 12]
    assert len(first.raw_input_contents[0]) == 2 * 24 * 12 * 4
    assert first.raw_input_contents != second.raw_input_contents
    assert list(random(X, shapes={"x": (30, 12)})[0].inputs[0].shape) == [1, 30, 12]


def test_the_same_seed_makes_the_same_requests() -> None:
    assert random(X) == random(X)
    assert random(X) != random(X, seed=1)


@pytest.mark.parametrize("datatype", inputs.DATATYPES)
def test_every_datatype_of_the_protocol(datatype: str) -> None:
    (made, _) = random(metadata(x=(datatype, [-1, 3])), rows=2)
    raw = made.raw_input_contents[0]
    if datatype == "BYTES":
        assert int.from_bytes(raw[:4], "little") == len(raw[4:].split(raw[:4])[0]) or len(raw) > 6 * 4
    elif datatype == "BF16":
        assert len(raw) == 6 * 2
        assert np.isfinite((np.frombuffer(raw, "<u2").astype(np.uint32) << 16).view(np.float32)).all()
    else:
        assert len(np.frombuffer(raw, inputs.DTYPES[datatype])) == 6


def test_tokens_stay_below_the_limit() -> None:
    (made, _) = random(metadata(x=("INT64", [-1, -1])), rows=50, token_limit=7)
    assert set(np.frombuffer(made.raw_input_contents[0], "<i8")) == set(range(7))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"shapes": {"z": (3,)}}, "--shape names 'z'; the inputs of 'm' are x"),
        ({"shapes": {"x": (30, 13)}}, r"--shape x:30,13 does not fit the model: behind the rows x is \[-1, 12\]"),
        ({"shapes": {"x": (30,)}}, "does not fit the model"),
    ],
)
def test_shapes_that_do_not_fit(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        random(X, **changes)


def test_a_model_of_one_row() -> None:
    assert list(random(metadata(x=("FP32", [1, 4])))[0].inputs[0].shape) == [1, 4]
    with pytest.raises(UsageError, match="--rows 2 does not fit"):
        random(metadata(x=("FP32", [1, 4])), rows=2)


def test_an_unknown_datatype() -> None:
    with pytest.raises(UsageError, match="'FP8'"):
        random(metadata(x=("FP8", [-1, 4])))


def test_shapes_of_the_command_line() -> None:
    assert inputs.parse_shapes(["x:30,12", "a:b:4"]) == {"x": (30, 12), "a:b": (4,)}
    for text in ("x", "x:", ":3", "x:0", "x:a", "x:-1"):
        with pytest.raises(UsageError, match="is not a shape"):
            inputs.parse_shapes([text])


def test_arrays_by_name_are_cut_into_requests(tmp_path: Path) -> None:
    x = np.arange(5 * 2 * 12, dtype=np.float64).reshape(5, 2, 12)
    np.savez(tmp_path / "d.npz", x=x, lengths=np.array([1, 2, 1, 2, 1]))
    made = from_file(tmp_path / "d.npz", X, rows=2)
    assert len(made) == 2  # the fifth row is left over
    assert [(t.name, t.datatype, list(t.shape)) for t in made[1].inputs] == [
        ("x", "FP32", [2, 2, 12]),
        ("lengths", "INT64", [2]),
    ]
    assert made[1].raw_input_contents[0] == x[2:4].astype("<f4").tobytes()


def test_numbered_sequences_keep_their_lengths_and_their_order(tmp_path: Path) -> None:
    np.savez(tmp_path / "d.npz", **{str(n): np.full((n + 1, 12), n, np.float32) for n in range(11)})
    made = from_file(tmp_path / "d.npz", X)
    assert [list(request.inputs[0].shape) for request in made] == [[1, n + 1, 12] for n in range(11)]


def test_strings_from_a_file(tmp_path: Path) -> None:
    np.savez(tmp_path / "d.npz", x=np.array([["a", "bc"], ["", "é"]]))
    (made,) = from_file(tmp_path / "d.npz", metadata(x=("BYTES", [-1, 2])), rows=2)
    assert made.raw_input_contents[0] == b"\1\0\0\0a\2\0\0\0bc\0\0\0\0\2\0\0\0\xc3\xa9"


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({}, "holds no array"),
        ({"y": np.zeros(3)}, "has no array 'x'; it has y"),
        ({"x": np.zeros((2, 4)), "lengths": np.zeros(3)}, "the same number of rows"),
        ({"x": np.float32(1)}, "the same number of rows"),
        ({"x": np.zeros((2, 4), complex)}, "is complex128, which does not go into the model's FP32"),
        ({"x": np.zeros((2, 4)), "z": np.zeros(2, complex)}, "which the protocol cannot carry"),
    ],
)
def test_files_that_do_not_fit(tmp_path: Path, arrays: dict[str, Any], message: str) -> None:
    np.savez(tmp_path / "d.npz", **arrays)
    with pytest.raises(UsageError, match=message):
        from_file(tmp_path / "d.npz", X)


def test_files_that_are_none(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="does not exist"):
        from_file(tmp_path / "none.npz", X)
    (tmp_path / "text.npz").write_text("not an archive")
    with pytest.raises(UsageError, match=r"is not a readable \.npz file"):
        from_file(tmp_path / "text.npz", X)
    np.save(tmp_path / "one.npy", np.zeros(3))
    with pytest.raises(UsageError, match="one nameless array"):
        from_file(tmp_path / "one.npy", X)
    np.savez(tmp_path / "pickled.npz", x=np.array([{}]))
    with pytest.raises(UsageError, match=r"is not a readable \.npz file"):
        from_file(tmp_path / "pickled.npz", X)


def test_cases_of_an_archive_keep_their_lengths_and_their_order(tmp_path: Path) -> None:
    (tmp_path / "d.ts").write_text("# made up\n@classLabel true a b\n@DATA\n1,2,3:4,5,6:a\n\n7:8:b\n")
    made = from_file(tmp_path / "d.ts", metadata(x=("FP32", [-1, -1, 2])))
    assert [list(request.inputs[0].shape) for request in made] == [[1, 3, 2], [1, 1, 2]]
    assert made[0].raw_input_contents[0] == np.array([[1, 4], [2, 5], [3, 6]], "<f4").tobytes()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("@data\n1,2:a\n1,?:a\n", "d.ts:3 is no case like .*'[?]'"),
        ("@data\n1,2:3:a\n", "d.ts:2 is no case like"),
        ("@data\na\n", "d.ts:2 is no case like .*no colon"),
        ("1,2:a\n", "holds no array"),
        ("\xff", "not text in UTF-8"),
    ],
)
def test_archives_that_are_none(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "d.ts").write_bytes(text.encode("latin-1"))
    with pytest.raises(UsageError, match=message):
        from_file(tmp_path / "d.ts", X)
    with pytest.raises(UsageError, match="does not exist"):
        from_file(tmp_path / "none.ts", X)


def test_numbered_sequences_are_for_models_of_one_input_and_one_row(tmp_path: Path) -> None:
    np.savez(tmp_path / "d.npz", **{"0": np.zeros((3, 12), np.float32)})
    with pytest.raises(UsageError, match="for models of one input; 'm' has a, b"):
        from_file(tmp_path / "d.npz", metadata(a=("FP32", [-1]), b=("FP32", [-1])))
    with pytest.raises(UsageError, match="leave --rows 2 out"):
        from_file(tmp_path / "d.npz", X, rows=2)
