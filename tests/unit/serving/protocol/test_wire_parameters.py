"""Parameters that are read from the bytes of a request are those that protobuf reads, or none are."""

from __future__ import annotations

import random

import pytest
from google.protobuf.message import DecodeError
from hypothesis import given, settings
from hypothesis import strategies as st

from protos import grpc_service_pb2 as pb
from serving.protocol.request import Parameter, parameters_of
from serving.protocol.wire_parameters import parameters_at

VALUES = st.one_of(
    st.booleans().map(lambda value: pb.InferParameter(bool_param=value)),
    st.integers(-(2**63), 2**63 - 1).map(lambda value: pb.InferParameter(int64_param=value)),
    st.integers(0, 2**64 - 1).map(lambda value: pb.InferParameter(uint64_param=value)),
    st.text(max_size=20).map(lambda value: pb.InferParameter(string_param=value)),
)
NAMES = st.one_of(st.sampled_from(["sequence_id", "sequence_start", "sequence_step"]), st.text(max_size=8))


def request(parameters: dict[str, pb.InferParameter]) -> pb.ModelInferRequest:
    made = pb.ModelInferRequest(raw_input_contents=[b"\x22\x02\x0a\x00"])
    for name, value in parameters.items():
        made.parameters[name].CopyFrom(value)
    return made


@settings(deadline=None)
@given(st.dictionaries(NAMES, VALUES, max_size=5))
def test_they_are_those_of_the_message_and_end_where_it_goes_on(parameters: dict[str, pb.InferParameter]) -> None:
    message = request(parameters)
    payload = message.SerializeToString()
    read = parameters_at(payload, 0)
    assert read is not None
    assert read[0] == parameters_of(message)
    assert payload[read[1] :] == request({}).SerializeToString()


@pytest.mark.parametrize("seed", range(8))
def test_whatever_else_is_there_is_read_alike_or_left_to_the_parser(seed: int) -> None:
    draw = random.Random(seed)
    message = request(
        {
            "sequence_id": pb.InferParameter(int64_param=draw.randrange(2**40)),
            "sequence_start": pb.InferParameter(bool_param=True),
            "name": pb.InferParameter(string_param="é"),
        }
    )
    whole = message.SerializeToString()
    read_alike = 0
    for _ in range(3000):
        payload = bytearray(whole)
        for _ in range(draw.randint(1, 3)):
            payload[draw.randrange(len(payload))] = draw.randrange(256)
        mutated = bytes(payload)
        read = parameters_at(mutated, 0)
        if read is None:
            continue
        try:
            parsed = pb.ModelInferRequest.FromString(mutated)
        except DecodeError:  # what is behind them is no message, which a template would not fit
            continue
        behind = pb.ModelInferRequest.FromString(mutated[read[1] :])
        if not behind.parameters:
            assert read[0] == parameters_of(parsed)
            read_alike += 1
    assert read_alike > 100


@pytest.mark.parametrize(
    "entry",
    [
        b"\x22\x80\x01" + b"\x0a\x01a\x12\x02\x08\x01",  # a length of two bytes
        b"\x22\x07\x12\x02\x08\x01\x0a\x01a",  # the value first
        b"\x22\x05\x0a\x01a\x12\x00",  # no value
        b"\x22\x09\x0a\x01a\x12\x04\x08\x01\x08\x00",  # two values
        b"\x22\x07\x0a\x01a\x12\x02\x08\x02",  # a truth of 2
        b"\x22\x0e\x0a\x01a\x12\x09\x21" + bytes(8),  # a double
        b"\x22\x08\x0a\x01\xff\x12\x03\x10\x81\x01",  # a name that is no text
        b"\x22\x07\x0a\x01a\x12\x02\x08\x01" * 2,  # twice the same
        b"\x22\x07\x0a\x01a\x12\x02\x10\x81",  # a number that goes on
        b"\x22\x07\x0a\x01a\x12\x02\x1a\x03",  # a text that goes on
        b"\x22\x07\x0a\x01a\x12",  # cut off
    ],
)
def test_what_protobuf_writes_otherwise_is_left_to_the_parser(entry: bytes) -> None:
    assert parameters_at(entry, 0) is None


def test_a_negative_number_and_the_largest() -> None:
    for value, kind in ((-1, "int64"), (2**64 - 1, "uint64")):
        made = pb.InferParameter(**{f"{kind}_param": value})
        read = parameters_at(request({"n": made}).SerializeToString(), 0)
        assert read
        assert read[0] == {"n": Parameter(kind, value)}
