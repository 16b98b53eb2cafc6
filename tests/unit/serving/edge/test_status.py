"""No message is too long, or too odd, to travel; when to try again is told as programs read it."""

from __future__ import annotations

from typing import Any

import pytest
from google.protobuf import any_pb2, descriptor_pb2, descriptor_pool, duration_pb2, message_factory

from serving.edge.status import MAX_DETAILS_BYTES, details, retry_info
from serving.protocol.codes import Code


@pytest.mark.parametrize(
    ("message", "travels"),
    [
        ("", ""),
        ("short", "short"),
        ("a" * MAX_DETAILS_BYTES, "a" * MAX_DETAILS_BYTES),
        ("a" * (MAX_DETAILS_BYTES + 1), "a" * MAX_DETAILS_BYTES + "..."),
        ("é" * (MAX_DETAILS_BYTES // 2), "é" * (MAX_DETAILS_BYTES // 2)),
        ("é" * MAX_DETAILS_BYTES, "é" * (MAX_DETAILS_BYTES // 2) + "..."),
        ("a" + "é" * MAX_DETAILS_BYTES, "a" + "é" * (MAX_DETAILS_BYTES // 2 - 1) + "..."),
        ("€" * MAX_DETAILS_BYTES, "€" * (MAX_DETAILS_BYTES // 3) + "..."),
        ("a name on disk that is no text: \udcff", "a name on disk that is no text: ?"),
    ],
    ids=["empty", "short", "just fits", "a byte too long", "fits in two bytes each", "cut between characters",
         "cut before a character", "three bytes each", "half a character"],
)  # fmt: skip
def test_what_travels_of_a_message(message: str, travels: str) -> None:
    assert details(message) == travels
    assert len(details(message).encode()) <= MAX_DETAILS_BYTES + len("...")


def google_rpc(name: str) -> Any:
    """A message of google.rpc, whose descriptors protobuf does not bring along."""
    file = descriptor_pb2.FileDescriptorProto(
        name="status_and_retry_info.proto",
        package="google.rpc",
        syntax="proto3",
        dependency=["google/protobuf/any.proto", "google/protobuf/duration.proto"],
    )
    kinds = descriptor_pb2.FieldDescriptorProto
    status = file.message_type.add(name="Status")
    status.field.add(name="code", number=1, type=kinds.TYPE_INT32, label=kinds.LABEL_OPTIONAL)
    status.field.add(name="message", number=2, type=kinds.TYPE_STRING, label=kinds.LABEL_OPTIONAL)
    inner = {"type": kinds.TYPE_MESSAGE, "type_name": ".google.protobuf.Any", "label": kinds.LABEL_REPEATED}
    status.field.add(name="details", number=3, **inner)
    retry = file.message_type.add(name="RetryInfo")
    delay = {"type": kinds.TYPE_MESSAGE, "type_name": ".google.protobuf.Duration", "label": kinds.LABEL_OPTIONAL}
    retry.field.add(name="retry_delay", number=1, **delay)
    pool = descriptor_pool.DescriptorPool()
    for known in (any_pb2, duration_pb2):
        pool.AddSerializedFile(known.DESCRIPTOR.serialized_pb)
    pool.Add(file)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName(f"google.rpc.{name}"))()


@pytest.mark.parametrize("retry_ms", [10, 999, 1000, 10_000])
def test_when_to_try_again_is_a_status_with_retry_info(retry_ms: int) -> None:
    status, retry = google_rpc("Status"), google_rpc("RetryInfo")
    status.ParseFromString(retry_info(Code.UNAVAILABLE, "full" + "é" * 5000, retry_ms))
    assert (status.code, status.message) == (14, details("full" + "é" * 5000))
    (packed,) = status.details
    assert packed.type_url == "type.googleapis.com/google.rpc.RetryInfo"
    retry.ParseFromString(packed.value)
    assert retry.retry_delay.seconds * 1000 + retry.retry_delay.nanos / 1e6 == retry_ms
