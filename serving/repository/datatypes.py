"""Datatypes by two names: the protocol's, as in FP32 and BYTES, and the schema's of ModelConfig, TYPE_FP32 and TYPE_STRING."""

from __future__ import annotations

from protos import model_config_pb2 as pb


def from_schema(value: int) -> str:
    """The protocol's name of a datatype of the schema."""
    name = pb.DataType.Name(value).removeprefix("TYPE_")
    return "BYTES" if name == "STRING" else name


def to_schema(datatype: str) -> str:
    """The schema's name of a datatype of the protocol."""
    return "TYPE_STRING" if datatype == "BYTES" else f"TYPE_{datatype}"
