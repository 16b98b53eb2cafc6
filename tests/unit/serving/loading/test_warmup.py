"""What a model computes before it is called ready: the sizes, the operator's own requests, and every refusal of them."""

from __future__ import annotations

import dataclasses
import struct
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from google.protobuf import text_format

from protos import model_config_pb2 as pb
from serving.batching.costs import Costs
from serving.clock import Clock
from serving.errors import ModelConfigError
from serving.loading import warmup
from serving.signature.spec import MaskedBy, ModelSpec
from serving.signature.tensors import Tensors, TensorSpec
from serving.verification import golden
from tests.support import fake_models

SPEC = fake_models.spec()
ALONE = dataclasses.replace(SPEC, lengths=None)
TOKENS = fake_models.spec(vocabulary=5)
STRINGS = ModelSpec(
    inputs=(TensorSpec("words", "BYTES", (-1, -1)),),
    outputs=(TensorSpec("y", "FP32", (-1, 1)),),
    lengths=None,
    state=(),
    streamable=False,
    tolerance=1e-5,
    weights_sha256="",
)
X = 'inputs { key: "x" value { data_type: TYPE_FP32 dims: [ 2, 3 ] zero_data: true } }'


def entry(text: str) -> pb.ModelWarmup:
    return text_format.Parse(f'name: "w" {text}', pb.ModelWarmup())


def configured(text: str, folder: Path, spec: ModelSpec = SPEC, max_rows: int = 8) -> tuple[Tensors, int]:
    (made,) = warmup.configured([entry(text)], spec, max_rows, folder)
    return made


@pytest.mark.parametrize(
    ("most", "counts"),
    [
        (1, [1]),
        (2, [1, 2]),
        (3, [1, 2, 3]),
        (4, [1, 2, 4]),
        (5, [1, 2, 4, 5]),
        (8, [1, 2, 4, 8]),
        (9, [1, 2, 4, 8, 9]),
        (64, [1, 2, 4, 8, 16, 32, 64]),
        (100, [1, 2, 4, 8, 16, 32, 64, 100]),
    ],
)
def test_every_doubling_of_the_rows_and_the_most(most: int, counts: Sequence[int]) -> None:
    assert warmup.row_counts(most) == counts


def test_samples_of_equal_length_are_computed_once() -> None:
    def sample(rows: int, steps: int) -> golden.Sample:
        return golden.Sample({"x": np.zeros((rows, steps, 3)), "lengths": np.arange(rows) + 1}, {})

    made = list(warmup.of_samples([sample(1, 4), sample(3, 4), sample(2, 6)], 3))
    assert [inputs["x"].shape for inputs in made] == [(rows, steps, 3) for steps in (4, 6) for rows in (1, 2, 3)]
    assert made[-1]["lengths"].tolist() == [1, 2, 1], "the rows over and over, each with its own length"


def test_a_batch_that_would_take_the_machines_memory_is_refused_before_it_is_made() -> None:
    sample = golden.Sample({"x": np.zeros((2, 4, 3), np.float32), "lengths": np.ones(2, np.int64)}, {})
    warmup.check_rows([sample], 2**31 // 56)
    with pytest.raises(
        ModelConfigError, match=r"max_batch_size is 2147483647: so many rows .* have 120259084232 bytes"
    ):
        warmup.check_rows([sample], 2**31 - 1)


def test_what_is_left_out_is_filled_in_as_in_requests(tmp_path: Path) -> None:
    inputs, times = configured(f"{X} batch_size: 4 count: 3", tmp_path)
    assert times == 3
    assert list(inputs) == ["x", "lengths", "h0", "c0"]
    assert inputs["x"].shape == (4, 2, 3)
    assert not inputs["x"].any()
    assert inputs["lengths"].tolist() == [2] * 4
    assert inputs["h0"].shape == (4, 1, 4)
    assert configured(X, tmp_path)[1] == 1


def test_random_data_is_what_the_model_takes_and_the_same_every_time(tmp_path: Path) -> None:
    text = X.replace("zero_data", "random_data")
    x = configured(text, tmp_path)[0]["x"]
    assert x.std() > 0.1
    np.testing.assert_array_equal(x, configured(text, tmp_path)[0]["x"])
    tokens = 'inputs { key: "x" value { data_type: TYPE_INT64 dims: 400 random_data: true } }'
    ids = configured(tokens, tmp_path, TOKENS)[0]["x"]
    assert set(ids.ravel()) == set(range(5)), "ids that the vocabulary has, all of them"


@pytest.mark.parametrize("kind", ["zero_data", "random_data"])
def test_lengths_are_never_zero_and_never_longer_than_the_row(kind: str, tmp_path: Path) -> None:
    text = f'{X} batch_size: 8 inputs {{ key: "lengths" value {{ data_type: TYPE_INT64 {kind}: true }} }}'
    assert configured(text, tmp_path)[0]["lengths"].tolist() == [1] * 8


REFUSED = {
    "batch-too-large": (f"{X} batch_size: 9", "batch_size is 9; it must be within 1 and max_batch_size 8"),
    "count-too-large": (f"{X} count: 4000000000", "count is 4000000000; at most 1000 are run"),
    "unknown-input": (f'{X} inputs {{ key: "z" value {{}} }}', "has an input 'z'; the model's are x, lengths, h0, c0"),
    "missing-input": ("batch_size: 1", "leaves out the inputs x"),
    "datatype": (X.replace("FP32", "FP64"), "input 'x' is FP64; the model's is FP32"),
    "no-datatype": (X.replace("data_type: TYPE_FP32", ""), "input 'x' is INVALID; the model's is FP32"),
    "rank": (X.replace("[ 2, 3 ]", "[ 2 ]"), r"dims \[2\]; the model's are \[-1, 3\]"),
    "size": (X.replace("[ 2, 3 ]", "[ 2, 4 ]"), r"dims \[2, 4\]; the model's are \[-1, 3\]"),
    "free-size": (X.replace("[ 2, 3 ]", "[ -1, 3 ]"), "where -1 takes any size from 1"),
    "no-steps": (X.replace("[ 2, 3 ]", "[ 0, 3 ]"), "where -1 takes any size from 1"),
    "too-large": (X.replace("[ 2, 3 ]", "[ 99999999, 3 ]"), "is larger than 268435456 bytes"),
    "no-data": (X.replace("zero_data: true", ""), "zero_data, random_data or input_data_file"),
    "no-file": (
        X.replace("zero_data: true", 'input_data_file: "none"'),
        "there is no file 'none' in the folder warmup",
    ),
    "outside": (
        X.replace("zero_data: true", 'input_data_file: "../x"'),
        r"there is no file '../x' in the folder warmup",
    ),
    "no-name": (X.replace("zero_data: true", r'input_data_file: "a\000b"'), "there is no file"),
    "long-name": (X.replace("zero_data: true", f'input_data_file: "{"a" * 5000}"'), "there is no file"),
    "huge": (X.replace("zero_data: true", 'input_data_file: "huge"'), "huge is larger than 268435456 bytes"),
    "folder": (X.replace("zero_data: true", 'input_data_file: "."'), "there is no file '.' in the folder warmup"),
    "circle": (
        X.replace("zero_data: true", 'input_data_file: "circle"'),
        "there is no file 'circle' in the folder warmup",
    ),
    "bytes": (X.replace("zero_data: true", 'input_data_file: "short"'), "short has 20 bytes; 24 or 192 are needed"),
}


@pytest.mark.parametrize(("text", "message"), REFUSED.values(), ids=list(REFUSED))
def test_what_is_refused(text: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "warmup").mkdir()
    (tmp_path / "warmup" / "short").write_bytes(bytes(20))
    (tmp_path / "warmup" / "circle").symlink_to("circle")
    (tmp_path / "x").write_bytes(bytes(24))
    with (tmp_path / "warmup" / "huge").open("wb") as huge:
        huge.truncate(2**40)  # takes no room on the disk
    batch = "" if "batch_size" in text else " batch_size: 8"
    with pytest.raises(ModelConfigError, match=f"model_warmup 'w'.*{message}"):
        configured(text + batch, tmp_path)


@pytest.mark.parametrize("rows", [1, 4])
def test_a_file_holds_one_row_for_all_or_all_of_them(rows: int, tmp_path: Path) -> None:
    (tmp_path / "warmup").mkdir()
    content = np.arange(rows * 6, dtype=np.float32).reshape(rows, 2, 3)
    (tmp_path / "warmup" / "x.bin").write_bytes(content.tobytes())
    text = X.replace("zero_data: true", 'input_data_file: "x.bin"')
    x = configured(f"{text} batch_size: 4", tmp_path)[0]["x"]
    np.testing.assert_array_equal(x, np.broadcast_to(content, (4, 2, 3)))


def test_strings_are_read_as_they_are_sent_and_empty_otherwise(tmp_path: Path) -> None:
    (tmp_path / "warmup").mkdir()
    packed = b"".join(struct.pack("<I", len(word)) + word for word in (b"a", b"", b"\xff\x00"))
    (tmp_path / "warmup" / "words").write_bytes(packed)
    text = 'batch_size: 2 inputs { key: "words" value { data_type: TYPE_STRING dims: 3 %s } }'

    def words(said: str) -> Any:
        return configured(text % said, tmp_path, STRINGS)[0]["words"].tolist()

    assert words('input_data_file: "words"') == [[b"a", b"", b"\xff\x00"]] * 2
    assert words("zero_data: true") == words("random_data: true") == [[b""] * 3] * 2
    (tmp_path / "warmup" / "words").write_bytes(packed[:-1])
    with pytest.raises(ModelConfigError, match="input 'words': words: "):
        words('input_data_file: "words"')


class Recording:
    """A backend that notes what it is asked, and takes a millisecond for each row."""

    def __init__(self) -> None:
        self.clock = GivenClock()
        self.ran: list[tuple[int, int, Sequence[str]]] = []  # rows, steps, outputs
        self.inputs: list[Tensors] = []

    def run(self, inputs: Tensors, outputs: Sequence[str]) -> Tensors:
        rows, steps = inputs["x"].shape[:2]
        self.ran.append((rows, steps, outputs))
        self.inputs.append(inputs)
        self.clock.now += rows * 1_000_000
        return {}

    def close(self) -> None: ...


class GivenClock(Clock):
    now = 0

    def now_ns(self) -> int:
        return self.now


def whole_sample(rows: int, steps: int) -> golden.Sample:
    x = np.arange(rows * steps * 3, dtype=np.float32).reshape(rows, steps, 3)
    state = np.zeros((rows, 1, 4), np.float32)
    return golden.Sample({"x": x, "lengths": np.full(rows, steps), "h0": state, "c0": state}, {})


def test_samples_run_twice_and_what_was_configured_as_often_as_it_says() -> None:
    backend, costs = Recording(), Costs()
    extra = whole_sample(1, 7).inputs
    warmup.run(backend, ALONE, [whole_sample(1, 4)], 2, [(extra, 3)], costs, backend.clock)
    assert backend.ran == [(1, 4, ["y"])] * 2 + [(2, 4, ["y"])] * 2 + [(1, 7, ["y"])] * 3
    assert sorted((cell.rows, cell.ns) for cell in costs.known()) == [(1, 1e6), (2, 2e6)]


def test_where_lengths_may_be_unequal_longer_batches_of_many_lengths_run_too() -> None:
    backend = Recording()
    warmup.run(backend, SPEC, [whole_sample(1, 3), whole_sample(2, 5)], 16, [], Costs(), backend.clock)
    longer = [(rows, steps) for rows, steps, _ in backend.ran if steps > 5]
    assert longer == [(rows, 20) for rows in (1, 1, 8, 8, 16, 16)] + [(rows, 80) for rows in (1, 1, 8, 8, 16, 16)]
    assert [inputs["lengths"].tolist() for inputs in backend.inputs if inputs["x"].shape[:2] == (8, 20)] == [
        [20, 18, 16, 13, 11, 9, 6, 4]
    ] * 2
    assert all(1 <= length <= inputs["x"].shape[1] for inputs in backend.inputs for length in inputs["lengths"])


@pytest.mark.parametrize(("most", "sizes"), [(1, [1]), (2, [1, 2]), (8, [1, 8]), (9, [1, 8, 9])])
def test_rows_of_many_lengths_run_once_at_each_size(most: int, sizes: Sequence[int]) -> None:
    made = list(warmup.of_unequal_lengths([whole_sample(1, 5)], SPEC, most))
    assert [inputs["x"].shape[:2] for inputs in made] == [(rows, steps) for steps in (20, 80) for rows in sizes]


@pytest.mark.parametrize(
    ("up_to", "own", "steps"),
    [(4096, 5, [20, 80]), (64, 5, [20, 64]), (32, 9, [32]), (32, 40, [32]), (4096, 200, [512])],
)
def test_a_file_of_others_that_is_told_its_lengths_runs_up_to_what_is_proved(
    up_to: int, own: int, steps: Sequence[int]
) -> None:
    told = TensorSpec("lengths", "INT64", (-1, 1))
    others = dataclasses.replace(
        SPEC, inputs=(SPEC.inputs[0], told), state=(), lengths=None, masks=MaskedBy("lengths", "x", up_to)
    )
    sample = whole_sample(1, own).inputs
    sent = golden.Sample({"x": sample["x"], "lengths": sample["lengths"].reshape(1, 1)}, {})
    made = list(warmup.of_unequal_lengths([sent], others, 4))
    assert [inputs["x"].shape[:2] for inputs in made] == [(rows, each) for each in steps for rows in (1, 4)]
    for inputs in made:
        rows, longest = inputs["x"].shape[:2]
        assert inputs["lengths"].shape == (rows, 1)
        assert inputs["lengths"].max() == longest
        assert inputs["lengths"].min() >= 1
        assert len({*inputs["lengths"].flat}) == rows
        np.testing.assert_array_equal(inputs["x"][:, own:], inputs["x"][:, : max(0, longest - own)])


def test_calls_that_would_take_long_are_left_out() -> None:
    backend = Recording()
    warmup.run(backend, SPEC, [whole_sample(1, 5)], 64, [], Costs(), backend.clock)
    assert {rows for rows, steps, _ in backend.ran if steps > 5} == {1, 8}, "64 rows take 64 ms"
