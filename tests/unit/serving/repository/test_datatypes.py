"""Datatypes by two names, there and back."""

from __future__ import annotations

import pytest

from protos import model_config_pb2 as pb
from serving.repository.datatypes import from_schema, to_schema
from serving.signature.tensors import DTYPES


@pytest.mark.parametrize("datatype", DTYPES)
def test_every_datatype_of_the_protocol_has_a_name_in_the_schema(datatype: str) -> None:
    assert from_schema(pb.DataType.Value(to_schema(datatype))) == datatype


@pytest.mark.parametrize(
    ("datatype", "name"),
    [("FP32", "TYPE_FP32"), ("BYTES", "TYPE_STRING"), ("BF16", "TYPE_BF16"), ("BOOL", "TYPE_BOOL")],
)
def test_how_the_schema_calls_it(datatype: str, name: str) -> None:
    assert to_schema(datatype) == name


def test_what_the_schema_has_beside_them_is_none_of_ours() -> None:
    assert {from_schema(value) for value in pb.DataType.values()} - set(DTYPES) == {"INVALID"}
