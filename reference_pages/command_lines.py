"""A page for each command, out of its own argparse parser.

The parsers' actions are read rather than `format_help`, whose text depends on the terminal's width and on the release of Python.
"""

from __future__ import annotations

import argparse
import re
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

from admin.__main__ import parser as admin
from admin.healthcheck import parser as healthcheck
from export.arguments import parser as export
from loadtest.command_line import parser as loadtest
from models.arguments import parser as train
from reference_pages.markdown import code, page, table
from serving.__main__ import ENVIRONMENT_PREFIX
from serving.__main__ import parser as serve

PARSERS: Mapping[str, Callable[[], argparse.ArgumentParser]] = {
    "lstm-train": train,
    "lstm-export": export,
    "lstm-serve": serve,
    "lstm-admin": admin,
    "lstm-loadtest": loadtest,
    "lstm-healthcheck": healthcheck,
}
_TITLES = {"positional arguments": "Arguments", "options": "Options"}
_PREFIXES = {"lstm-serve": ENVIRONMENT_PREFIX}  # of commands whose flags are environment variables too


def pages() -> dict[str, str]:
    """The pages by the names of the commands."""
    return {name: described(name, make()) for name, make in PARSERS.items()}


def described(name: str, parser: argparse.ArgumentParser) -> str:
    """The page of one command."""
    epilog = parser.epilog or ""
    if "\n" in epilog:
        epilog = f"```text\n{epilog.strip()}\n```"
    return page(name, parser.description or "", *_parts(name, parser, 2), epilog)


def _parts(name: str, parser: argparse.ArgumentParser, level: int) -> Iterator[str]:
    """A table for each group of arguments, then each subcommand with its own."""
    yield f"```text\n{usage(name, parser)}\n```"
    subcommands: dict[str, argparse.ArgumentParser] = {}
    for group in parser._action_groups:
        shown = [action for action in group._group_actions if not isinstance(action, argparse._HelpAction)]
        for action in shown:
            if isinstance(action, argparse._SubParsersAction):
                subcommands = dict(action.choices)
                told = {choice.dest: choice.help or "" for choice in action._choices_actions}
        if lines := [_line(action, name) for action in shown if not isinstance(action, argparse._SubParsersAction)]:
            title = _TITLES.get(group.title or "", (group.title or "").capitalize())
            yield f"{'#' * level} {title}" if level == 2 else f"**{title}**"
            yield table(("flag" if title != "Arguments" else "argument", "meaning", "default"), lines)
    for word, subparser in subcommands.items():
        yield f"{'#' * level} {name} {word}"
        yield subparser.description or sentence(told[word])
        yield from _parts(f"{name} {word}", subparser, level + 1)


def usage(name: str, parser: argparse.ArgumentParser) -> str:
    """The command with what must be given."""
    needed = [action for action in parser._actions if action.required]
    options = [f"{action.option_strings[-1]} {_value(action)}".strip() for action in needed if action.option_strings]
    return " ".join([name, *options, "[options]", *(_value(action) for action in needed if not action.option_strings)])


def _line(action: argparse.Action, name: str) -> tuple[str, str, str]:
    flag = ", ".join(action.option_strings)
    first = " ".join(filter(None, [code(flag), " or ".join(map(code, _value(action).split("|")))]))
    told = " ".join(meaning(action).split())
    if action.required and flag:
        told += " (required)"
    if isinstance(action, argparse._AppendAction) and "several times" not in told and "give the flag once" not in told:
        told += " (may be given several times)"
    prefix = _PREFIXES.get(name)
    if prefix and not isinstance(action, argparse._VersionAction):
        told += f". {code(prefix + action.dest.upper())}"
    return first, told, code(_default(action))


def meaning(action: argparse.Action) -> str:
    """The help of an argument with its values filled in, without the default, which has a column of its own."""
    if isinstance(action, argparse._VersionAction):
        return "print the version and exit"  # argparse's own words are those of a release of Python
    filled = (action.help or "") % {**vars(action), "prog": ""} if "%(" in (action.help or "") else action.help or ""
    return re.sub(r"\s*\(default:? [^()]*\)", "", filled) if _default(action) else filled


def _value(action: argparse.Action) -> str:
    """What stands for the value of an argument; empty for a flag that takes none."""
    if action.nargs == 0:
        return ""
    if action.metavar:
        return str(action.metavar)
    return "|".join(map(str, action.choices)) if action.choices else action.dest.upper()


def _default(action: argparse.Action) -> str:
    """The value that holds where none is given; empty where there is none to speak of."""
    value = action.default
    if value is None or value is argparse.SUPPRESS or value is False or value in ([], ""):
        return ""
    if isinstance(value, tuple):
        return ",".join(map(str, value))
    return f"{value:g}" if isinstance(value, float) else value.as_posix() if isinstance(value, Path) else str(value)


def sentence(text: str) -> str:
    """The text as a sentence."""
    return f"{text[:1].upper()}{text[1:]}{'' if text.endswith('.') else '.'}" if text else ""
