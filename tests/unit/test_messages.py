"""Each message that docs/troubleshooting.md quotes is one that the code can say: its words stand in one text, in this order."""

from __future__ import annotations

import ast
import functools
import re

import pytest

from tests.support.commands import ROOT

PACKAGES = ("admin", "commands", "export", "loadtest", "models", "serving")
GAP = "…"
LINE = re.compile(r"^\| `(.+?)` \| ", re.MULTILINE)
QUOTED = [found.replace("\\|", "|") for found in LINE.findall((ROOT / "docs/troubleshooting.md").read_text())]


@functools.cache
def texts() -> tuple[str, ...]:
    """Every text of the code, with a gap for each value that is put into it."""
    found = []
    for package in PACKAGES:
        for path in sorted((ROOT / package).rglob("*.py")):
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
                if isinstance(node, ast.JoinedStr):
                    parts = [part.value if isinstance(part, ast.Constant) else GAP for part in node.values]
                    found.append("".join(map(str, parts)))
                elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                    found.append(node.value)
                elif isinstance(node, ast.Constant) and isinstance(node.value, bytes):
                    found.append(node.value.decode(errors="replace"))  # as HTTP/2 carries it
    return tuple(found)


def said(message: str) -> bool:
    """Whether the fixed parts of a message stand in one text, one after the other."""
    parts = [part.strip() for part in message.split(GAP)]
    pattern = re.compile(".*?".join(map(re.escape, parts)), re.DOTALL)
    return any(all(part in text for part in parts) and pattern.search(text) for text in texts())


def test_there_are_messages_and_each_stands_once() -> None:
    assert len(QUOTED) > 50
    assert len(set(QUOTED)) == len(QUOTED)


@pytest.mark.parametrize("message", QUOTED)
def test_a_quoted_message_is_in_the_code(message: str) -> None:
    assert said(message)


@pytest.mark.parametrize(
    ("message", "there"),
    [
        ("Exceeds maximum queue size", True),
        ("the gRPC address … cannot be bound", True),
        ("cannot be bound … the gRPC address", False),
        ("Exceeds the maximum of the queue", False),
    ],
)
def test_what_counts_as_said(message: str, there: bool) -> None:
    assert said(message) == there
