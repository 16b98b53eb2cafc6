"""What a log line looks like, for people and for machines, whatever a client has sent."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator

import pytest

from serving.telemetry import logs


@pytest.fixture(autouse=True)
def _leave_logging_as_it_was() -> Iterator[None]:
    logger = logging.getLogger("serving")
    before = (logger.handlers[:], logger.propagate, logger.level)
    yield
    logger.handlers[:], logger.propagate = before[:2]
    logger.setLevel(before[2])


def said(style: str, message: str, capsys: pytest.CaptureFixture[str], **fields: object) -> str:
    logs.configure(style, "info")
    logging.getLogger("serving.test").info(message, extra={"fields": fields})
    return capsys.readouterr().err


def test_text(capsys: pytest.CaptureFixture[str]) -> None:
    line = said(
        "text",
        "loaded",
        capsys,
        model="a b",
        version=1,
        empty="",
        quoted='"',
        plain="x",
        yes=True,
        no=None,
        some=["a", "b"],
    )
    when, _, rest = line.partition(" ")
    assert when.endswith("+00:00")
    assert rest == 'INFO    loaded model="a b" version=1 empty="" quoted="\\"" plain=x yes=true no=none some=a,b\n'


@pytest.mark.parametrize("nasty", ["a\nERROR forged", "a\x1b[2J", "a\r", "a\u2028b"])
def test_a_client_cannot_forge_a_line_or_steer_a_terminal(nasty: str, capsys: pytest.CaptureFixture[str]) -> None:
    line = said("text", nasty, capsys, request_id=nasty)
    assert line.endswith("\n")
    assert line[:-1].isprintable()
    entry = json.loads(said("json", nasty, capsys, request_id=nasty))
    assert (entry["message"], entry["request_id"]) == (nasty, nasty)


def test_json(capsys: pytest.CaptureFixture[str]) -> None:
    entry = json.loads(said("json", "loaded", capsys, version=1, verified=True))
    assert entry.pop("time").endswith("+00:00")
    assert entry == {"level": "info", "message": "loaded", "version": 1, "verified": True}
