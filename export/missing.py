"""What a person has still to say: all of it at once, as the command to run next."""

from __future__ import annotations

import re
import shlex
from collections.abc import Sequence

from export.errors import ExportError

UNKNOWN = "DTYPE[SIZES]"  # what a person has to say of a tensor
_FLAG = re.compile(
    r"(?<![\w-])(?P<flag>--(?:shape|value|rows|state|input|output)) (?P<what>[A-Za-z_][^\s;,()]*[:=][^\s;()]*)"
)

_READING = re.compile(r"several axes: (?P<name>[^=]+)=")


class Missing(ExportError):
    """Something must be said before there is anything to do; `flags` say it, with words in capitals where a person decides."""

    def __init__(self, message: str, flags: Sequence[str]) -> None:
        super().__init__(message)
        self.flags = tuple(flags)


def command(arguments: Sequence[str], flags: Sequence[str]) -> str:
    """The whole command line, ready to be copied."""
    return shlex.join(["lstm-export", *arguments, *flags])


def flags_in(message: str) -> list[str]:
    """The flags that a message asks for, each once, as it writes them."""
    found: dict[str, str] = {}
    for each in _FLAG.finditer(message):
        found.setdefault(each["flag"], each["what"].rstrip(".,:"))
    if found.get("--rows") == "INPUT=AXIS" and (named := _READING.search(message)):
        found["--rows"] = f"{named['name']}=AXIS"
    return [part for pair in found.items() for part in pair]
