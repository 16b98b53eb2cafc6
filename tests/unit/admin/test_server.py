"""What is said of a server that refuses, is slow, or is not there."""

from __future__ import annotations

from pathlib import Path

import grpc
import pytest

from admin import __main__ as admin
from admin.server import one_line
from tests.unit.admin.triton_like import Asked, Refusal, TritonLike


def test_a_server_that_refuses_is_quoted_in_one_line(triton: TritonLike, asked: Asked) -> None:
    code, out, err = asked("swap", "vowels", "--backend", "tensorrt")
    assert (code, out) == (1, "")
    assert err == (
        "lstm-admin: the server refuses RepositoryModelLoad: INVALID_ARGUMENT: load failed for model 'vowels': no tensorrt\n"
    )
    assert asked("swap", "none", "--count", "2")[2] == (
        "lstm-admin: the server refuses ModelConfig: NOT_FOUND: Request for unknown model: 'none' is not found\n"
    )


def test_a_server_that_loads_nothing_is_not_taken_for_one_that_is_not_there(triton: TritonLike, asked: Asked) -> None:
    said = "explicit model load / unload is not allowed if polling is enabled"
    triton.refuse["RepositoryModelLoad"] = Refusal(grpc.StatusCode.UNAVAILABLE, said)
    code, _, err = asked("load", "vowels")
    assert (code, err) == (1, f"lstm-admin: the server refuses RepositoryModelLoad: UNAVAILABLE: {said}\n")


def test_a_server_that_is_not_there(capsys: pytest.CaptureFixture[str]) -> None:
    assert admin.main(["--url", "127.0.0.1:1", "index"]) == 1
    err = capsys.readouterr().err
    assert err.startswith("lstm-admin: no server answers at 127.0.0.1:1: UNAVAILABLE: ")
    assert err.endswith("is it running, is that its gRPC port, and does it want TLS (--tls-ca FILE)?\n")
    assert err.count("\n") == 1


def test_an_answer_that_does_not_come(triton: TritonLike, asked: Asked) -> None:
    triton.refuse["RepositoryModelLoad"] = Refusal(grpc.StatusCode.DEADLINE_EXCEEDED, "Deadline Exceeded")
    code, _, err = asked("load", "vowels")
    assert code == 1
    assert "RepositoryModelLoad took more than 20 s (--timeout-seconds); the server may still be at it" in err


def test_a_token_goes_with_every_call(triton: TritonLike, asked: Asked, tmp_path: Path) -> None:
    file = tmp_path / "token"
    file.write_text("first\nsecond\n")
    assert asked("--token-file", file, "index")[0] == 0
    assert ("authorization", "Bearer first") in triton.metadata
    triton.refuse["ServerMetadata"] = Refusal(grpc.StatusCode.UNAUTHENTICATED, "no token")
    assert asked("index")[2].endswith(
        "refuses to talk: UNAUTHENTICATED: no token; give it one with --token-file FILE\n"
    )
    assert asked("--token-file", file, "index")[2].endswith("refuses to talk: UNAUTHENTICATED: no token\n")


def test_a_message_of_several_lines_is_told_in_one() -> None:
    assert one_line("broken:\n\n  y differs\t\n") == "broken: y differs"
