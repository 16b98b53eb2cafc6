"""The parameters of a request, read from its bytes where they lie as protobuf writes them: those of steps differ in nothing else.

A client's step has its id, its number and its flags in parameters, so no two are alike byte for byte; what comes behind these
is (`serving.protocol.templates`). An entry of a map is a message of its own, the key first
(https://protobuf.dev/programming-guides/encoding/#maps).
"""

from __future__ import annotations

from protos import grpc_service_pb2 as pb
from serving.protocol.request import Parameter

ONE_BYTE = 128  # lengths below this are one byte on the wire
SIGN, WRAP = 1 << 63, 1 << 64

_LENGTH_DELIMITED = 2
_ENTRY = pb.ModelInferRequest.DESCRIPTOR.fields_by_name["parameters"].number << 3 | _LENGTH_DELIMITED
_KEY, _VALUE = 1 << 3 | _LENGTH_DELIMITED, 2 << 3 | _LENGTH_DELIMITED
_FIELDS = pb.InferParameter.DESCRIPTOR.fields_by_name
_BOOL, _INT64, _UINT64 = (_FIELDS[f"{kind}_param"].number << 3 for kind in ("bool", "int64", "uint64"))
_STRING = _FIELDS["string_param"].number << 3 | _LENGTH_DELIMITED
_TRUE, _FALSE = Parameter("bool", True), Parameter("bool", False)


def parameters_at(payload: bytes, at: int) -> tuple[dict[str, Parameter], int] | None:
    """The parameters that begin there, and where what comes after them does; None where they are to be parsed."""
    found: dict[str, Parameter] = {}
    try:
        while payload[at] == _ENTRY:
            size, key_size = payload[at + 1], payload[at + 3]
            end, key_end = at + 2 + size, at + 4 + key_size
            value_at = key_end + 2
            if size >= ONE_BYTE or payload[at + 2] != _KEY or payload[key_end] != _VALUE:
                return None
            if value_at + payload[key_end + 1] != end:
                return None
            name = payload[at + 4 : key_end].decode()
            parameter = _parameter(payload, value_at, end)
            if parameter is None or name in found:
                return None
            found[name] = parameter
            at = end
    except (IndexError, UnicodeDecodeError):
        return None
    return found, at


def _parameter(payload: bytes, at: int, end: int) -> Parameter | None:
    """The value between these places, which has at least a tag and something behind it."""
    if end - at < 2 or end > len(payload):
        return None
    tag = payload[at]
    if tag == _BOOL:
        return (_TRUE if payload[at + 1] else _FALSE) if end - at == 2 and payload[at + 1] < 2 else None
    if tag == _STRING:
        whole = payload[at + 1] < ONE_BYTE and at + 2 + payload[at + 1] == end
        return Parameter("string", payload[at + 2 : end].decode()) if whole else None
    number = _varint(payload[at + 1 : end]) if tag in (_INT64, _UINT64) else None
    if number is None or tag == _UINT64:
        return None if number is None else Parameter("uint64", number)
    return Parameter("int64", number - WRAP if number >= SIGN else number)


def _varint(content: bytes) -> int | None:
    """The number that all of these bytes are; None if they are none, or more."""
    number = shift = 0
    for byte in content[:-1]:
        if byte < ONE_BYTE:
            return None
        number |= (byte & 127) << shift
        shift += 7
    number |= content[-1] << shift
    return number if content[-1] < ONE_BYTE and number < WRAP else None
