"""The pages of the commands have every argument, and depend on the parser alone."""

from __future__ import annotations

import argparse
import tomllib
from collections.abc import Iterator

import pytest

from reference_pages import command_lines
from reference_pages.__main__ import ROOT


def arguments(parser: argparse.ArgumentParser) -> Iterator[argparse.Action]:
    """Every argument of a parser and of its subcommands."""
    for action in parser._actions:
        yield action
        if isinstance(action, argparse._SubParsersAction):
            for subparser in action.choices.values():
                yield from arguments(subparser)


def test_every_installed_command_has_a_page() -> None:
    installed = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["scripts"]
    assert set(installed) == set(command_lines.pages())


@pytest.mark.parametrize("name", command_lines.PARSERS)
def test_a_page_has_every_argument_with_its_help(name: str) -> None:
    text = command_lines.pages()[name]
    found = [each for each in arguments(command_lines.PARSERS[name]()) if "--help" not in each.option_strings]
    assert found
    for action in found:
        flag = action.option_strings[-1] if action.option_strings else ""
        assert not flag or f"`{flag}`" in text
        assert flag == "--version" or " ".join(command_lines.meaning(action).split()).replace("|", "\\|") in text


def test_the_width_of_a_terminal_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    wide = command_lines.pages()
    monkeypatch.setenv("COLUMNS", "40")
    assert command_lines.pages() == wide


def described(**argument: object) -> str:
    parser = argparse.ArgumentParser()
    parser.add_argument("--flag", **argument)  # type: ignore[arg-type]
    return next(line for line in command_lines.described("x", parser).splitlines() if line.startswith("| `--flag`"))


@pytest.mark.parametrize(
    ("argument", "line"),
    [
        ({"help": "what"}, "| `--flag` `FLAG` | what |  |"),
        ({"help": "what (default 3)", "default": 3.0}, "| `--flag` `FLAG` | what | `3` |"),
        ({"help": "what (default: the next)"}, "| `--flag` `FLAG` | what (default: the next) |  |"),
        ({"help": "a|b", "action": "store_true"}, "| `--flag` | a\\|b |  |"),
        ({"help": "what", "choices": ("a", "b"), "default": "a"}, "| `--flag` `a` or `b` | what | `a` |"),
        ({"help": "what", "required": True, "metavar": "X"}, "| `--flag` `X` | what (required) |  |"),
        (
            {"help": "what", "action": "append", "default": []},
            "| `--flag` `FLAG` | what (may be given several times) |  |",
        ),
        ({"help": "in %(default)s", "default": "here"}, "| `--flag` `FLAG` | in here | `here` |"),
    ],
)
def test_a_line_says_what_is_given_what_it_means_and_the_default(argument: dict[str, object], line: str) -> None:
    assert described(**argument) == line


def test_the_usage_names_what_must_be_given() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("file", metavar="FILE")
    parser.add_argument("--out", required=True, metavar="RUN")
    assert command_lines.usage("x", parser) == "x --out RUN [options] FILE"
