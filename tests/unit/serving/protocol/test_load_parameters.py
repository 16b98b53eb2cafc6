"""What clients may send along with a load, and the sentence for what they may not."""

from __future__ import annotations

from collections.abc import Mapping

import pytest

from protos import grpc_service_pb2 as pb
from serving.errors import InvalidRequest
from serving.protocol import load_parameters

TEXT = pb.ModelRepositoryParameter(string_param="{}")
CONTENT = pb.ModelRepositoryParameter(bytes_param=b"x")


@pytest.mark.parametrize(
    ("sent", "config", "files"),
    [
        ({}, None, {}),
        ({"config": TEXT}, "{}", {}),
        ({"config": TEXT, "file:1/a": CONTENT, "file:2/b/c": CONTENT}, "{}", {"1/a": b"x", "2/b/c": b"x"}),
        ({"config": TEXT, "file:": CONTENT}, "{}", {"": b"x"}),  # refused when it is to be written
    ],
)
def test_parameters(sent: Mapping[str, pb.ModelRepositoryParameter], config: str | None, files: object) -> None:
    assert load_parameters.read(sent) == (config, files)


@pytest.mark.parametrize(
    ("sent", "message"),
    [
        ({"colour": TEXT}, "unrecognized load parameter 'colour'; known are config and file:VERSION/PATH"),
        ({"FILE:1/a": CONTENT}, "unrecognized load parameter 'FILE:1/a'"),
        ({"config": CONTENT}, "invalid value type for load parameter 'config', expected string_param"),
        ({"config": pb.ModelRepositoryParameter(bool_param=True)}, "expected string_param"),
        ({"config": TEXT, "file:1/a": TEXT}, "load parameter 'file:1/a', expected bytes_param"),
        ({"config": TEXT, "file:1/a": pb.ModelRepositoryParameter(int64_param=1)}, "expected bytes_param"),
        ({"file:1/a": CONTENT}, "'config' must be sent along with files"),
    ],
)
def test_parameters_that_are_refused(sent: Mapping[str, pb.ModelRepositoryParameter], message: str) -> None:
    with pytest.raises(InvalidRequest, match=message):
        load_parameters.read(sent)
