"""From protobuf to plain data, before anything is known of the model."""

from __future__ import annotations

import pytest

from protos import grpc_service_pb2 as pb
from serving.errors import InvalidRequest
from serving.protocol.request import CLASSIFICATION, FEW, SHARED_MEMORY, InferTensor, Parameter, from_protobuf, id_of

NO_MESSAGE = b"\xff\xff\xff"


def sent(**fields: object) -> pb.ModelInferRequest:
    request = pb.ModelInferRequest(model_name="m", model_version="2", id="7")
    request.MergeFrom(pb.ModelInferRequest(**fields))  # type: ignore[arg-type]
    return request


def test_names_versions_and_ids_are_taken_over() -> None:
    request = from_protobuf(sent().SerializeToString())
    assert (request.model_name, request.model_version, request.id) == ("m", "2", "7")
    assert (request.inputs, request.outputs, request.parameters, request.raw_count) == ([], [], {}, 0)


def test_raw_contents_belong_to_the_inputs_in_their_order() -> None:
    request = sent(raw_input_contents=[b"one", b""])
    request.inputs.add(name="a", datatype="UINT8", shape=[1, 3])
    request.inputs.add(name="b", datatype="UINT8", shape=[0])
    request.inputs.add(name="c", datatype="UINT8", shape=[])
    read = from_protobuf(request.SerializeToString())
    assert read.raw_count == 2
    assert read.inputs == [
        InferTensor("a", "UINT8", (1, 3), raw=b"one"),
        InferTensor("b", "UINT8", (0,), raw=b""),
        InferTensor("c", "UINT8", ()),
    ]


def test_without_raw_contents_the_typed_fields_count_by_their_names() -> None:
    request = sent()
    request.inputs.add(name="a").contents.fp32_contents.extend([1, 2])
    request.inputs.add(name="b").contents.int_contents.append(3)
    request.inputs[1].contents.bytes_contents.append(b"x")
    request.inputs.add(name="c")
    contents = [each.contents for each in from_protobuf(request.SerializeToString()).inputs]
    assert [{name: list(values) for name, values in (each or {}).items()} for each in contents] == [
        {"fp32_contents": [1, 2]},
        {"int_contents": [3], "bytes_contents": [b"x"]},
        {},
    ]


@pytest.mark.parametrize("typed", [True, False])
def test_beside_raw_contents_it_is_known_whether_typed_fields_were_sent(typed: bool) -> None:
    request = sent(raw_input_contents=[b"one"])
    request.inputs.add(name="a")
    if typed:
        request.inputs[0].contents.SetInParent()
    (tensor,) = from_protobuf(request.SerializeToString()).inputs
    assert (tensor.raw, tensor.contents is not None) == (b"one", typed)


@pytest.mark.parametrize(
    ("value", "read"),
    [
        (pb.InferParameter(bool_param=False), Parameter("bool", False)),
        (pb.InferParameter(int64_param=-1), Parameter("int64", -1)),
        (pb.InferParameter(uint64_param=2**63), Parameter("uint64", 2**63)),
        (pb.InferParameter(double_param=0.5), Parameter("double", 0.5)),
        (pb.InferParameter(string_param=""), Parameter("string", "")),
        (pb.InferParameter(), Parameter("", None)),
    ],
)
def test_a_parameter_has_the_kind_of_the_field_that_was_set(value: pb.InferParameter, read: Parameter) -> None:
    request = sent(parameters={"p": value})
    request.outputs.add(name="y").parameters[CLASSIFICATION].CopyFrom(value)
    got = from_protobuf(request.SerializeToString())
    assert got.parameters == {"p": read}
    assert got.outputs[0].classification == read


def test_outputs_say_what_was_asked_of_them() -> None:
    request = sent()
    for name in ("plain", "shared"):
        request.outputs.add(name=name)
        request.inputs.add(name=name)
    request.outputs[1].parameters[SHARED_MEMORY].string_param = "region"
    request.inputs[1].parameters[SHARED_MEMORY].string_param = "region"
    got = from_protobuf(request.SerializeToString())
    assert [(each.name, each.in_shared_memory, each.classification) for each in got.outputs] == [
        ("plain", False, None),
        ("shared", True, None),
    ]
    assert [(each.name, each.in_shared_memory) for each in got.inputs] == [("plain", False), ("shared", True)]


def test_bytes_that_are_no_request_are_refused() -> None:
    with pytest.raises(InvalidRequest, match="the request is not a ModelInferRequest message"):
        from_protobuf(NO_MESSAGE)


@pytest.mark.parametrize(("payload", "known"), [(sent().SerializeToString(), "7"), (b"", ""), (NO_MESSAGE, "")])
def test_the_id_of_what_may_be_no_request(payload: bytes, known: str) -> None:
    assert id_of(payload) == known


def test_what_nobody_looks_at_is_not_made() -> None:
    """A message of a few bytes an input may hold millions; the first that is wrong is all that is looked at."""
    asked = pb.ModelInferRequest(model_name="m")
    for number in range(FEW + 1):
        asked.inputs.add(name=str(number))
    many = from_protobuf(asked.SerializeToString()).inputs
    assert not isinstance(many, list)
    assert (len(many), many[FEW].name, next(iter(many)).name) == (FEW + 1, str(FEW), "0")
    del asked.inputs[0]
    assert [one.name for one in from_protobuf(asked.SerializeToString()).inputs] == [str(n + 1) for n in range(FEW)]
