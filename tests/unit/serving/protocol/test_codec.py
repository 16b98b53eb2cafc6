"""What a request may look like, and the sentence for everything that is wrong with one."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from protos import grpc_service_pb2 as pb
from serving.errors import ComputeFailed, InvalidInput, InvalidRequest, NotImplementedHere, ServingError
from serving.protocol import codec
from serving.protocol.checks import Limits
from serving.protocol.codec import Decoded
from serving.protocol.request import from_protobuf
from serving.signature.spec import ModelSpec
from serving.signature.tensors import Tensors
from tests.support.fake_models import FEATURES, STATE, spec

LIMITS = Limits(max_rows=4, max_steps=10)
X = np.arange(2 * 5 * FEATURES, dtype=np.float32).reshape(2, 5, FEATURES)
DATATYPES = {"float32": "FP32", "int64": "INT64", "int32": "INT32", "float64": "FP64"}


def request(**inputs: npt.NDArray[Any]) -> pb.ModelInferRequest:
    """A request as `tritonclient` makes it."""
    made = pb.ModelInferRequest(model_name="m", id="7")
    for name, array in inputs.items():
        made.inputs.add(name=name, datatype=DATATYPES[array.dtype.name], shape=array.shape)
        made.raw_input_contents.append(array.tobytes())
    return made


def decode(asked: pb.ModelInferRequest, model: ModelSpec, limits: Limits = LIMITS) -> Decoded:
    return codec.decode(from_protobuf(asked.SerializeToString()), model, limits)


def test_a_client_may_leave_out_what_the_server_knows() -> None:
    decoded = decode(request(x=X), spec())
    assert list(decoded.inputs) == ["x"]
    assert (decoded.rows, decoded.steps, list(decoded.outputs)) == (2, 5, ["y"])
    np.testing.assert_array_equal(decoded.inputs["x"], X)
    state = {name: np.ones((2, *STATE[1:]), np.float32) for name in ("h0", "c0")}
    sent_too = decode(request(x=X, lengths=np.array([5, 5]), **state), spec())
    assert sent_too.key == decoded.key, "they share a batch"


def test_what_a_client_sends_is_taken() -> None:
    h0 = np.ones((2, *STATE[1:]), np.float32)
    decoded = decode(request(h0=h0, lengths=np.array([5, 1]), c0=h0, x=X), spec())
    assert set(decoded.inputs) == {"x", "lengths", "h0", "c0"}
    np.testing.assert_array_equal(decoded.inputs["lengths"], [5, 1])
    np.testing.assert_array_equal(decoded.inputs["h0"], h0)


def test_arrays_are_views_of_the_request() -> None:
    x = decode(request(x=X), spec()).inputs["x"]
    assert not x.flags.owndata
    assert not x.flags.writeable


def test_typed_contents_give_the_same_arrays() -> None:
    typed = pb.ModelInferRequest(model_name="m")
    tensor = typed.inputs.add(name="x", datatype="FP32", shape=X.shape)
    tensor.contents.fp32_contents.extend(X.ravel().tolist())
    np.testing.assert_array_equal(decode(typed, spec()).inputs["x"], X)


def test_nan_and_infinity_pass_where_they_are_not_refused() -> None:
    x = X.copy()
    x[0, 0] = [np.nan, np.inf, -np.inf]
    np.testing.assert_array_equal(decode(request(x=x), spec()).inputs["x"], x)


def test_nan_is_refused_in_true_steps_and_in_state() -> None:
    limits = dataclasses.replace(LIMITS, finite_only=True)
    x = X.copy()
    x[1, 3:] = np.nan
    assert decode(request(x=x, lengths=np.array([5, 3])), spec(), limits).rows == 2
    with pytest.raises(InvalidInput, match="'x' for model 'm' holds nan in row 1, step 3"):
        decode(request(x=x), spec(), limits)
    h0, c0 = np.zeros((2, *STATE[1:]), np.float32), np.full((2, *STATE[1:]), np.inf, np.float32)
    with pytest.raises(InvalidInput, match="'c0' for model 'm' holds inf in row 0"):
        decode(request(x=X, h0=h0, c0=c0), spec(), limits)


def test_a_shape_that_the_operator_shows_is_taken_and_given() -> None:
    x, y = spec().inputs[0], spec().outputs[0]
    reshaped = dataclasses.replace(
        spec(),
        inputs=(dataclasses.replace(x, shown=(-1, -1, 1, FEATURES)), *spec().inputs[1:]),
        outputs=(dataclasses.replace(y, shown=(-1, 1, 2)), *spec().outputs[1:]),
    )
    decoded = decode(request(x=X[:, :, None]), reshaped)
    np.testing.assert_array_equal(decoded.inputs["x"], X)
    assert list(encoded(reshaped, {"y": np.ones((2, 2), np.float32)}).outputs[0].shape) == [2, 1, 2]
    with pytest.raises(
        ComputeFailed, match=r"output 'y' was computed with another shape .* \[2, 3\] does not fit \[-1, 2\]"
    ):
        encoded(reshaped, {"y": np.ones((2, 3), np.float32)})


def test_tokens_behind_the_length_may_be_anything() -> None:
    tokens = np.array([[0, 4, 99, -7]])
    decoded = decode(request(x=tokens, lengths=np.array([2])), spec(vocabulary=5))
    np.testing.assert_array_equal(decoded.inputs["x"], tokens)


def test_outputs_come_in_the_order_asked() -> None:
    asked = request(x=X)
    for name in ("cn", "y"):
        asked.outputs.add(name=name)
    assert list(decode(asked, spec()).outputs) == ["cn", "y"]


def test_the_answer_holds_raw_contents_in_order() -> None:
    y, hn = np.ones((2, 2), np.float32), np.zeros((2, 1, 4), np.float32)
    answer = encoded(spec(), {"hn": hn, "y": y[:, ::-1]})
    assert (answer.model_name, answer.model_version, answer.id) == ("m", "3", "7")
    assert [(o.name, o.datatype, list(o.shape)) for o in answer.outputs] == [
        ("hn", "FP32", [2, 1, 4]),
        ("y", "FP32", [2, 2]),
    ]
    assert list(answer.raw_output_contents) == [hn.tobytes(), y.tobytes()]


def encoded(model: ModelSpec, outputs: Tensors, classes: Mapping[str, int] | None = None) -> pb.ModelInferResponse:
    payload = codec.encode("7", "m", "3", model, outputs, classes or {}, {"y": ("left", "right")})
    return pb.ModelInferResponse.FromString(payload)


def test_classes_take_the_place_of_the_tensor_that_they_are_asked_of() -> None:
    y, hn = np.array([[0.25, 0.75]], np.float32), np.zeros((1, 1, 4), np.float32)
    answer = encoded(dataclasses.replace(spec(), labels_of="y"), {"y": y, "hn": hn}, {"y": 1, "hn": 1})
    assert [(o.name, o.datatype, list(o.shape)) for o in answer.outputs] == [
        ("y", "BYTES", [1, 1]),
        ("hn", "BYTES", [1, 1]),
    ]
    assert list(answer.raw_output_contents) == [
        b"\x10\0\0\0" + b"0.750000:1:right",
        b"\x0a\0\0\0" + b"0.000000:0",  # no output but that of the specification has labels
    ]


def test_classes_are_read_from_the_outputs_that_want_them() -> None:
    asked = request(x=X)
    asked.outputs.add(name="hn")
    asked.outputs.add(name="y").parameters["classification"].CopyFrom(pb.InferParameter(int64_param=2))
    decoded = decode(asked, spec())
    assert (list(decoded.outputs), decoded.classes) == (["hn", "y"], {"y": 2})


def changed(change: Callable[[pb.ModelInferRequest], object]) -> pb.ModelInferRequest:
    made = request(x=X)
    change(made)
    return made


def _shape(*sizes: int) -> Callable[[pb.ModelInferRequest], object]:
    def change(made: pb.ModelInferRequest) -> None:
        made.inputs[0].shape[:] = sizes

    return change


def _parameter(name: str, **value: Any) -> Callable[[pb.ModelInferRequest], object]:
    return lambda made: made.parameters[name].CopyFrom(pb.InferParameter(**value))


def _again(made: pb.ModelInferRequest) -> None:
    made.inputs.append(made.inputs[0])
    made.raw_input_contents.append(made.raw_input_contents[0])


def _typed(field: str, count: int, **clear: bool) -> Callable[[pb.ModelInferRequest], object]:
    def change(made: pb.ModelInferRequest) -> None:
        if clear.get("raw", True):
            del made.raw_input_contents[:]
        getattr(made.inputs[0].contents, field).extend([1] * count)

    return change


def _only_lengths(request: pb.ModelInferRequest) -> None:
    del request.inputs[:], request.raw_input_contents[:]
    request.inputs.add(name="lengths", datatype="INT64", shape=[1])
    request.raw_input_contents.append(np.ones(1, np.int64).tobytes())


def _classification(**value: Any) -> Callable[[pb.ModelInferRequest], object]:
    return lambda r: r.outputs.add(name="y").parameters["classification"].CopyFrom(pb.InferParameter(**value))


BAD: list[tuple[str, Callable[[pb.ModelInferRequest], object], type[ServingError], str]] = [
    ("no input", lambda r: (r.ClearField("inputs"), r.ClearField("raw_input_contents")), InvalidInput,
     r"expected 1 inputs but got 0 inputs for model 'm'. Got input\(s\) \[\], but missing required input\(s\) \['x'\]"),
    ("lengths alone", _only_lengths, InvalidInput,
     r"expected 1 inputs but got 0 inputs for model 'm'. Got input\(s\) \['lengths'\], but missing required input\(s\) \['x'\]"),
    ("unknown input", lambda r: setattr(r.inputs[0], "name", "z"), InvalidInput,
     "unexpected inference input 'z' for model 'm'; its inputs are \\['x'\\]"),
    ("the same input twice", _again, InvalidInput, "input 'x' already exists in request"),
    ("wrong datatype", lambda r: setattr(r.inputs[0], "datatype", "INT32"), InvalidInput,
     "inference input 'x' data-type is 'INT32', but model 'm' expects 'FP32'"),
    ("wrong rank", _shape(2, 5), InvalidInput, r"unexpected shape for input 'x' for .*Expected \[-1,-1,3\], got \[2,5\]"),
    ("absurd rank", _shape(*[1] * 100_000), InvalidInput, r"got \[1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,...\]"),
    ("wrong features", _shape(2, 3, 5), InvalidInput, r"Expected \[-1,-1,3\], got \[2,3,5\]"),
    ("no steps", _shape(2, 0, 3), InvalidInput, "unexpected shape"),
    ("no rows", _shape(0, 5, 3), InvalidInput, "unexpected shape"),
    ("no shape", _shape(), InvalidInput, "input 'x' has no shape but model requires batch dimension"),
    ("an open size", _shape(-1, 5, 3), InvalidInput, "All input dimensions should be specified for input 'x'"),
    ("an overflowing shape", _shape(2**62, 2**62, 3), InvalidInput, "batch-size must be <= 4"),
    ("too many steps", _shape(2, 11, 3), InvalidInput, "input 'x' has 11 steps, but at most 10 .* --max-steps"),
    ("truncated bytes", lambda r: r.raw_input_contents.__setitem__(0, b"123"), InvalidInput,
     "input byte size mismatch for input 'x' for model 'm'. Expected 120, got 3"),
    ("no data", lambda r: r.ClearField("raw_input_contents"), InvalidInput,
     "unable to find data for input tensor 'x' for model 'm' in request"),
    ("more data than inputs", lambda r: r.raw_input_contents.append(b""), InvalidRequest, "2 entries for 1 inputs"),
    ("both encodings", _typed("fp32_contents", 30, raw=False), InvalidRequest,
     "contents field must not be specified when using raw_input_contents for 'x'"),
    ("the wrong typed field", _typed("int64_contents", 30), InvalidInput,
     "unexpected explicit tensor data for input tensor 'x'.*fp32_contents"),
    ("too few typed elements", _typed("fp32_contents", 29), InvalidInput, "Expected 30 elements, got 29"),
    ("unknown output", lambda r: r.outputs.add(name="q"), InvalidInput,
     r"unexpected inference output 'q' for model 'm'; its outputs are \['y','hn','cn'\]"),
    ("the same output twice", lambda r: (r.outputs.add(name="y"), r.outputs.add(name="y")), InvalidInput,
     "output 'y' already exists in request"),
    ("no class", _classification(int64_param=0), InvalidRequest, "invalid value for 'classification' parameter"),
    ("classes in words", _classification(string_param="2"), InvalidRequest, "'classification' parameter, expected int64_param"),
    ("shared memory", lambda r: r.inputs[0].parameters["shared_memory_region"].CopyFrom(pb.InferParameter(string_param="r")),
     NotImplementedHere, "Client shared memory is disabled"),
    ("a sequence", _parameter("sequence_id", int64_param=5), InvalidRequest, "'sequence_id'.*add sequence_batching .*h0 and c0"),
    ("a parameter without a value", _parameter("mine"), InvalidRequest, "parameter 'mine' has no value"),
    ("a reserved parameter", _parameter("triton_x", bool_param=True), InvalidRequest, "reserved; 'triton_x'"),
    ("an empty final response that is no flag", _parameter("triton_enable_empty_final_response", int64_param=1), InvalidRequest,
     "expected bool_param"),
    ("a negative priority", _parameter("priority", int64_param=-1), InvalidRequest, "invalid value for 'priority'"),
    ("a timeout in words", _parameter("timeout", string_param="1"), InvalidRequest, "'timeout' parameter, expected int64_param"),
]  # fmt: skip


@pytest.mark.parametrize(("change", "error", "message"), [case[1:] for case in BAD], ids=[case[0] for case in BAD])
def test_bad_requests(
    change: Callable[[pb.ModelInferRequest], object], error: type[ServingError], message: str
) -> None:
    with pytest.raises(error, match=message) as raised:
        decode(changed(change), spec())
    assert type(raised.value) is error
    assert len(str(raised.value)) < 500


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        (
            {"x": X, "lengths": np.array([5, 0])},
            "'lengths' for model 'm' holds 0, but every length must be within 1 and the 5",
        ),
        ({"x": X, "lengths": np.array([6, 1])}, "holds 6"),
        ({"x": X, "lengths": np.array([5])}, "batch size does not match other inputs for 'm': 1 rows beside 2"),
        (
            {"x": X, "h0": np.zeros((2, 1, 4), np.float32)},
            r"send all of it or none: \['c0'\] would silently start from zero",
        ),
        ({"x": X, "h0": np.zeros((2, 2, 4), np.float32)}, r"Expected \[-1,1,4\], got \[2,2,4\]"),
        ({"x": X.repeat(3, axis=0)}, "inference request batch-size must be <= 4 for 'm'; got 6"),
    ],
)
def test_inputs_that_do_not_fit_each_other(inputs: dict[str, npt.NDArray[Any]], message: str) -> None:
    with pytest.raises(InvalidInput, match=message):
        decode(request(**inputs), spec())


@pytest.mark.parametrize("token", [5, -1])
def test_tokens_outside_the_vocabulary(token: int) -> None:
    with pytest.raises(InvalidInput, match=f"token {token}, which is outside its vocabulary of 5: ids are 0 to 4"):
        decode(request(x=np.array([[0, token, 1]])), spec(vocabulary=5))


def test_parameters_of_the_clients_own_are_let_through() -> None:
    asked = changed(_parameter("tenant", string_param="a"))
    for name, value in (("priority", {"uint64_param": 3}), ("timeout", {"int64_param": 10}),
                        ("triton_enable_empty_final_response", {"bool_param": True})):  # fmt: skip
        asked.parameters[name].CopyFrom(pb.InferParameter(**value))
    assert decode(asked, spec()).rows == 2


def test_bytes_that_are_no_message() -> None:
    with pytest.raises(InvalidRequest, match="not a ModelInferRequest"):
        from_protobuf(b"\xff\xff\xff")
