"""A server to ask, and the command that asks it."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent import futures

import grpc
import pytest

from admin import __main__ as admin
from tests.unit.admin.triton_like import Asked, TritonLike


@pytest.fixture
def triton() -> Iterator[TritonLike]:
    there = TritonLike()
    server = grpc.server(futures.ThreadPoolExecutor(2), handlers=[there])
    there.url = f"127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}"
    server.start()
    yield there
    server.stop(None).wait()


@pytest.fixture
def asked(triton: TritonLike, capsys: pytest.CaptureFixture[str]) -> Asked:
    """Runs the command against that server: exit code, standard output, standard error."""

    def run(*line: object) -> tuple[int, str, str]:
        try:
            code = admin.main(["--url", triton.url, "--timeout-seconds", "20", *map(str, line)])
        except SystemExit as ended:
            code = int(str(ended.code))
        told = capsys.readouterr()
        return code, told.out, told.err

    return run
