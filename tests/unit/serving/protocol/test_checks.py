"""What a request may hold, decision by decision; `test_codec.py` has whole requests."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from serving.batching.pending import USUAL, Turn
from serving.errors import InvalidInput, InvalidRequest
from serving.protocol import checks
from serving.protocol.checks import Limits
from serving.protocol.request import Parameter
from serving.signature.spec import ModelSpec, StatePair
from serving.signature.tensors import BF16, TensorSpec
from tests.support.fake_models import spec

LIMITS = Limits(max_rows=4, max_steps=10)
SEQUENCES = spec()
X = SEQUENCES.inputs_by_name["x"]  # FP32 [rows, steps, 3]
SCALAR = TensorSpec("s", "FP32", (-1,), rows_axis=None)  # one for all rows
VECTOR = TensorSpec("v", "FP32", (-1, 2), rows_axis=None)
SHARING = dataclasses.replace(SEQUENCES, inputs=(*SEQUENCES.inputs, SCALAR, VECTOR))
EMPTY = dataclasses.replace(SEQUENCES, may_be_empty=True)
ONE_ROW = ModelSpec(
    inputs=(SCALAR, VECTOR),
    outputs=(TensorSpec("y", "FP32", (-1,), rows_axis=None),),
    lengths=None,
    state=(),
    streamable=False,
    tolerance=1e-5,
    weights_sha256="",
    batched=False,
)


@pytest.mark.parametrize(
    ("model", "tensor", "sent", "shape"),
    [
        (SEQUENCES, X, (1, 1, 3), (1, 1, 3)),
        (SEQUENCES, X, (4, 10, 3), (4, 10, 3)),
        (EMPTY, X, (1, 0, 3), (1, 0, 3)),
        (SHARING, SCALAR, (), (1,)),
        (SHARING, SCALAR, (3,), (3,)),
        (SHARING, SCALAR, (3, 1), (3,)),
        (SHARING, VECTOR, (2,), (1, 2)),
        (SHARING, VECTOR, (3, 2), (3, 2)),
        (ONE_ROW, SCALAR, (), (1,)),
        (ONE_ROW, SCALAR, (1,), (1,)),
        (ONE_ROW, VECTOR, (2,), (1, 2)),
    ],
)
def test_shapes_that_fit_have_their_rows_first(
    model: ModelSpec, tensor: TensorSpec, sent: tuple[int, ...], shape: tuple[int, ...]
) -> None:
    assert checks.shape(sent, tensor, model, LIMITS, "m") == shape


@pytest.mark.parametrize(
    ("model", "tensor", "sent", "said"),
    [
        (SEQUENCES, X, (), "input 'x' has no shape but model requires batch dimension for 'm'"),
        (SEQUENCES, X, (1, -1, 3), r"All input dimensions should be specified .* got \[1,-1,3\]"),
        (SEQUENCES, X, (1, 2), r"Expected \[-1,-1,3\], got \[1,2\]"),
        (SEQUENCES, X, (1, 2, 4), r"Expected \[-1,-1,3\], got \[1,2,4\]"),
        (SEQUENCES, X, (0, 2, 3), r"got \[0,2,3\]. -1 stands for any size, for rows and steps from 1"),
        (SEQUENCES, X, (1, 0, 3), r"got \[1,0,3\]"),
        (EMPTY, X, (0, 1, 3), r"got \[0,1,3\]"),
        (SEQUENCES, X, (1,) * 20, r"got \[1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,\.\.\.\]"),
        (SEQUENCES, X, (5, 1, 3), "batch-size must be <= 4 for 'm'; got 5"),
        (SEQUENCES, X, (1, 11, 3), "has 11 steps, but at most 10 are allowed"),
        (SHARING, VECTOR, (3,), r"Expected \[-1,2\], got \[3\]"),
        (ONE_ROW, VECTOR, (1, 2), r"Expected \[2\], got \[1,2\]"),
    ],
)
def test_shapes_that_do_not_fit(model: ModelSpec, tensor: TensorSpec, sent: tuple[int, ...], said: str) -> None:
    with pytest.raises(InvalidInput, match=said):
        checks.shape(sent, tensor, model, LIMITS, "m")


@pytest.mark.parametrize("rows", [[[1, 2]], [[1, 2], [1, 2]], [[np.nan, 2], [np.nan, 2]]])
def test_what_all_rows_share_may_be_given_for_each(rows: list[list[float]]) -> None:
    array = np.array(rows)
    assert checks.one_of_all(array, VECTOR, "m") is array


@pytest.mark.parametrize("rows", [[[1, 2], [1, 3]], [[0.0, 1], [-0.0, 1]]])
def test_what_all_rows_share_must_be_the_same_to_the_last_bit(rows: list[list[float]]) -> None:
    with pytest.raises(InvalidInput, match="'v' for model 'm' differs between rows"):
        checks.one_of_all(np.array(rows), VECTOR, "m")


def strings(*elements: bytes) -> npt.NDArray[Any]:
    return np.array(elements, object)


def test_text_is_utf8() -> None:
    tensor = TensorSpec("t", "BYTES", (-1,))
    checks.text(strings(b"", b"a\x00", "é€".encode()), tensor, "m")
    with pytest.raises(InvalidInput, match=r"element 1 of input 't' .* is not UTF-8, .* invalid start byte at byte 2"):
        checks.text(strings(b"ok", b"ok\xff"), tensor, "m")


@pytest.mark.parametrize(("sent", "wrong"), [([1, 5], None), ([5], None), ([0, 5], 0), ([1, 6], 6), ([-1], -1)])
def test_lengths_are_within_what_was_sent(sent: list[int], wrong: int | None) -> None:
    if wrong is None:
        checks.lengths(np.array(sent), 5, "lengths", "m")
        return
    with pytest.raises(InvalidInput, match=rf"'lengths' for model 'm' holds {wrong}, but every .* 1 and the 5 steps"):
        checks.lengths(np.array(sent), 5, "lengths", "m")


@pytest.mark.parametrize(
    ("ids", "lengths", "wrong"),
    [
        ([[0, 6]], [2], None),
        ([[0, 7]], [1], None),
        ([[0, -1], [6, 6]], [1, 2], None),
        ([[0, 7]], [2], 7),
        ([[-1, 0]], [2], -1),
        ([[0, 99], [8, 0]], [1, 1], 8),
        ([[0.0, 6.0]], [2], None),
        ([[0.0, float("nan")]], [2], float("nan")),
        ([[0.0, 7.5]], [2], 7.5),
    ],
)
def test_every_true_step_holds_an_id_of_the_vocabulary(
    ids: list[list[float]], lengths: list[int], wrong: float | None
) -> None:
    inputs = {"x": np.array(ids), "lengths": np.array(lengths)}
    if wrong is None:
        checks.tokens(inputs, spec(vocabulary=7), "m")
        return
    with pytest.raises(InvalidInput, match=rf"holds token {wrong}, .* vocabulary of 7: ids are 0 to 6"):
        checks.tokens(inputs, spec(vocabulary=7), "m")


@pytest.mark.parametrize(
    ("name", "parameter", "turn"),
    [
        ("mine", Parameter("double", 0.5), USUAL),
        ("timeout_ms", Parameter("double", 0.5), USUAL),
        ("priority_class", Parameter("string", "gold"), USUAL),
        ("priorities", Parameter("string", "1,2"), USUAL),
        ("sequence", Parameter("string", "ACGT"), USUAL),
        ("sequence_ids", Parameter("string", "1,2"), USUAL),
        ("", Parameter("bool", True), USUAL),
        ("sequence_id", Parameter("int64", 0), USUAL),
        ("sequence_id", Parameter("string", ""), USUAL),
        ("sequence_start", Parameter("bool", False), USUAL),
        ("sequence_end", Parameter("bool", False), USUAL),
        ("priority", Parameter("int64", 0), USUAL),
        ("priority", Parameter("uint64", 3), Turn(priority=3)),
        ("timeout", Parameter("int64", 1000), Turn(timeout_ns=1_000_000)),
        ("timeout", Parameter("int64", -1), USUAL),
        ("triton_enable_empty_final_response", Parameter("bool", True), USUAL),
    ],
)
def test_parameters_that_are_let_through_and_what_they_ask_of_the_queue(
    name: str, parameter: Parameter, turn: Turn
) -> None:
    assert checks.parameters({name: parameter}, spec(), "m") == turn


@pytest.mark.parametrize(
    ("name", "parameter", "said"),
    [
        ("mine", Parameter("", None), "parameter 'mine' has no value"),
        ("sequence_id", Parameter("uint64", 1), "asks model 'm' to keep state between requests"),
        ("sequence_id", Parameter("string", "a"), "parameter 'sequence_id' asks model 'm' to keep state"),
        ("sequence_id", Parameter("bool", True), "'sequence_id' parameter, expected int64_param or string_param."),
        ("sequence_start", Parameter("bool", True), "parameter 'sequence_start' asks model 'm' to keep state"),
        (
            "sequence_start",
            Parameter("int64", 0),
            "invalid value type for 'sequence_start' parameter, expected bool_param.",
        ),
        ("sequence_end", Parameter("bool", True), "parameter 'sequence_end' asks model 'm' to keep state"),
        ("priority", Parameter("int64", -1), "invalid value for 'priority', expected value >= 0"),
        (
            "priority",
            Parameter("string", "1"),
            r"invalid value type for 'priority' parameter, expected int64_param or uint64_param",
        ),
        ("priority", Parameter("double", 1.0), "invalid value type for 'priority' parameter"),
        ("Priority", Parameter("int64", 1), "parameter 'Priority' means nothing; write it 'priority'"),
        ("time_out", Parameter("int64", 1), "parameter 'time_out' means nothing; write it 'timeout'"),
        ("Sequence_id", Parameter("int64", 1), "parameter 'Sequence_id' means nothing; write it 'sequence_id'"),
        ("sequenceStart", Parameter("bool", True), "write it 'sequence_start'"),
        ("sequence-end", Parameter("bool", True), "write it 'sequence_end'"),
        ("SEQUENCE_STEP", Parameter("int64", 0), "write it 'sequence_step'"),
        ("sequence__nonce", Parameter("int64", 0), "write it 'sequence_nonce'"),
        ("sequenceepoch", Parameter("int64", 0), "write it 'sequence_epoch'"),
        ("timeout", Parameter("uint64", 1), "invalid value type for 'timeout' parameter, expected int64_param"),
        ("triton_anything", Parameter("bool", True), "'triton_anything' is not a known one"),
        ("triton_enable_empty_final_response", Parameter("int64", 1), "expected bool_param"),
    ],
)
def test_parameters_that_would_be_misunderstood(name: str, parameter: Parameter, said: str) -> None:
    with pytest.raises(InvalidRequest, match=said):
        checks.parameters({"other": Parameter("bool", True), name: parameter}, spec(), "m")


def test_the_parameters_that_ask_for_a_sequence_are_named_and_no_others() -> None:
    sent = {"sequence_start": Parameter("bool", False), "sequence_end": Parameter("bool", True)}
    sent |= {"sequence_id": Parameter("int64", 7)}
    with pytest.raises(
        InvalidRequest, match=r"parameters 'sequence_id', 'sequence_end' ask model 'm' .* leave them out"
    ):
        checks.parameters(sent, spec(), "m")


@pytest.mark.parametrize(
    ("state", "said"),
    [
        ((StatePair("h0", "hn"), StatePair("c0", "cn")), "yourself (inputs h0 and c0, outputs hn and cn), or leave it out"),
        ((StatePair("h0", "hn"),), "send the state yourself (input h0, output hn), or leave it out"),
        ((), "to keep state between requests, which it has none of: send each sequence whole, and leave it out"),
    ],
)  # fmt: skip
def test_who_asks_for_state_to_be_kept_is_told_what_this_model_has(state: tuple[StatePair, ...], said: str) -> None:
    with pytest.raises(InvalidRequest) as refused:
        checks.parameters({"sequence_id": Parameter("int64", 7)}, dataclasses.replace(spec(), state=state), "m")
    assert said in str(refused.value)


PICTURE = TensorSpec("p", "FP32", (1, -1, -1, 3), rows_axis=None)
RESHAPED = TensorSpec("r", "FP32", (-1, 1, -1, 2), steps_axis=2, shown=(-1, -1, 2))


@pytest.mark.parametrize(
    ("model", "tensor", "sent", "shape"),
    [
        (ONE_ROW, PICTURE, (5000, 5000, 3), (1, 5000, 5000, 3)),
        (SEQUENCES, RESHAPED, (4, 10, 2), (4, 1, 10, 2)),
    ],
)
def test_only_steps_are_counted(
    model: ModelSpec, tensor: TensorSpec, sent: tuple[int, ...], shape: tuple[int, ...]
) -> None:
    assert checks.shape(sent, tensor, model, LIMITS, "m") == shape


def test_a_shape_that_the_operator_shows_is_what_is_expected() -> None:
    with pytest.raises(InvalidInput, match=r"Expected \[-1,-1,2\], got \[4,1,10,2\]"):
        checks.shape((4, 1, 10, 2), RESHAPED, SEQUENCES, LIMITS, "m")
    with pytest.raises(InvalidInput, match="input 'r' has 11 steps, but at most 10"):
        checks.shape((4, 11, 2), RESHAPED, SEQUENCES, LIMITS, "m")


TIMED = TensorSpec("x", "FP32", (-1, 2, -1), steps_axis=2)  # [rows, features, steps]
BAD = (np.nan, np.inf, -np.inf)


@pytest.mark.parametrize("bad", BAD)
@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_numbers_of_true_steps_are_finite(bad: float, dtype: type) -> None:
    array = np.full((2, 2, 4), 60000, dtype)  # their sum is beyond float16
    lengths = np.array([4, 3])
    checks.finite(array, TIMED, lengths, "m")
    array[1, 0, 3] = bad  # behind the length
    checks.finite(array, TIMED, lengths, "m")
    with pytest.raises(InvalidInput, match=f"'x' for model 'm' holds {bad} in row 1, step 3, and what"):
        checks.finite(array, TIMED, np.array([4, 4]), "m")
    with pytest.raises(InvalidInput, match="row 1, step 3"):
        checks.finite(array, TIMED, None, "m")


def test_state_is_finite_and_whole_numbers_are() -> None:
    checks.finite(np.full((1, 2), 2**31), TensorSpec("ids", "INT64", (-1, -1)), None, "m")
    checks.finite(strings(b"nan"), TensorSpec("text", "BYTES", (-1,)), None, "m")
    with pytest.raises(InvalidInput, match="'h0' for model 'm' holds nan in row 1, and what"):
        checks.finite(np.array([[0.0], [np.nan]]), TensorSpec("h0", "FP64", (-1, 1)), None, "m")


@pytest.mark.parametrize(("bits", "is_finite"), [(0x7F7F, True), (0x7F80, False), (0xFF80, False), (0x7FC0, False)])
def test_halves_of_the_brain_are_finite(bits: int, is_finite: bool) -> None:
    halves, tensor = np.array([[0, bits]], np.uint16).view(BF16), TensorSpec("b", "BF16", (-1, 2))
    if is_finite:
        checks.finite(halves, tensor, None, "m")
        return
    with pytest.raises(InvalidInput, match="holds NaN or infinity in row 0"):
        checks.finite(halves, tensor, None, "m")
