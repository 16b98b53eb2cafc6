"""From the command line's options to a place that a connection can be made to."""

from __future__ import annotations

from pathlib import Path

import pytest

from loadtest.command_line import parser
from loadtest.endpoint import Endpoint, from_options
from loadtest.errors import UsageError


def endpoint(*line: object) -> Endpoint:
    return from_options(parser().parse_args(["--url", "localhost:8001", "--model", "m", *map(str, line)]))


def test_a_plain_connection_has_no_credentials() -> None:
    assert endpoint() == Endpoint("localhost:8001", None, ())


def test_a_token_goes_with_every_call_and_tls_is_asked_for(tmp_path: Path) -> None:
    (tmp_path / "token").write_text("secret\n")
    made = endpoint("--tls", "--token-file", tmp_path / "token")
    assert made.metadata == (("authorization", "Bearer secret"),)
    assert made.credentials is not None


def test_files_that_cannot_be_read_are_wrong_usage() -> None:
    with pytest.raises(UsageError, match=r"^none\.pem cannot be read: No such file or directory$"):
        endpoint("--tls-ca", "none.pem")
