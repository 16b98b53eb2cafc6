"""The commands that the pages show can be typed: our own are parsed, targets of make exist, the rest are known programs."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

from reference_pages.command_lines import PARSERS
from tests.support.commands import ROOT
from tests.support.pages import PAGES, commands, name_of

OTHERS = {".", "curl", "docker", "openssl", "pip", "python", "python3", "sh", "wait"}
SHOWN = [(page, command) for page in PAGES for command in commands(page)]


def targets() -> set[str]:
    """What make can be asked for."""
    lines = (ROOT / "Makefile").read_text(encoding="utf-8").splitlines()
    return {line.partition(":")[0] for line in lines if ":" in line and not line.startswith(("\t", "#", "."))}


@pytest.mark.parametrize(("page", "command"), SHOWN, ids=[f"{name_of(page)}: {command}" for page, command in SHOWN])
def test_a_command_can_be_typed(page: Path, command: str) -> None:
    program, *given = shlex.split(command.partition(" > ")[0].partition(" | ")[0])
    if program in PARSERS:
        assert PARSERS[program]().parse_args(given)
    elif program == "make":
        assert given[0] in targets()
    else:
        assert program.rpartition("/")[2] in OTHERS


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_a_target_that_is_named_exists(page: Path) -> None:
    assert set(re.findall(r"`make ([a-z-]+)[ `]", page.read_text(encoding="utf-8"))) <= targets()


def test_every_command_of_ours_is_shown_somewhere() -> None:
    assert {command.split()[0] for _, command in SHOWN} >= {*PARSERS, "make"}
