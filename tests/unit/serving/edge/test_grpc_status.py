"""Every code has gRPC's name."""

from __future__ import annotations

import grpc
import pytest

from serving.edge.grpc_status import status
from serving.protocol.codes import Code


@pytest.mark.parametrize("code", Code)
def test_every_code_is_one_of_grpcs(code: Code) -> None:
    assert status(code).value[0] == code.value


def test_there_is_a_code_of_grpcs_own_for_ok() -> None:
    assert status(Code.OK) is grpc.StatusCode.OK
