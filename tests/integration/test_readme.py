"""What the README names is there."""

from __future__ import annotations

import re

from tests.support.commands import ROOT

README = (ROOT / "README.md").read_text()


def test_every_target_that_is_named_exists() -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    named = set(re.findall(r"(?:`|^)make ([a-z-]+)\b", README, re.MULTILINE))
    assert named
    assert named <= targets


def test_every_file_that_is_named_exists() -> None:
    assert [link for link in re.findall(r"\]\((?!http)([^)]+)\)", README) if not (ROOT / link).exists()] == []
    named = set(re.findall(r"`((?:models|export|serving|protos)/[\w/]+\.py)`", README))
    assert named
    assert [name for name in named if not (ROOT / name).exists()] == []
