"""An argparse parser that says what is wrong in one sentence, and the kinds of arguments that several commands take.

A kind refuses with the value that was given and the ones that are allowed. argparse adds the name of the flag.
"""

from __future__ import annotations

import argparse
import re
from collections.abc import Callable
from typing import NoReturn

REFUSED = 2  # the exit code of a command that was asked for in a way that makes no sense
INTERRUPTED = 130  # what a shell reports for a program that Ctrl-C has ended
MOST = 2**31 - 1  # the largest whole number that every part of the system can hold

_DEVICE = re.compile(r"cpu|cuda:[0-9]{1,3}")


class Parser(argparse.ArgumentParser):
    """Says what is wrong in one sentence, without the usage text: `lstm-serve: ...; see lstm-serve --help`."""

    def error(self, message: str) -> NoReturn:
        self.exit(REFUSED, f"{self.prog}: {message}; see {self.prog} --help\n")


def whole_number(least: int = 0, most: int = MOST) -> Callable[[str], int]:
    """A whole number in `least..most`, written in plain digits: no sign, no blank, no underscore."""

    def parse(text: str) -> int:
        if text.isascii() and text.isdigit() and len(text) < 20 and least <= int(text) <= most:
            return int(text)
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number from {least} to {most}")

    return parse


def number(least: float, most: float, what: str = "a number") -> Callable[[str], float]:
    """A number in `least..most`, and never NaN; `what` names it where it is refused."""

    def parse(text: str) -> float:
        try:
            value = float(text)
        except ValueError:
            value = float("nan")
        if not least <= value <= most:
            raise argparse.ArgumentTypeError(f"{text!r} is not {what} from {least:.15g} to {most:.15g}")
        return value

    return parse


def seconds(least: float = 0.0, most: float = 1e9) -> Callable[[str], float]:
    """A time in `least..most` seconds."""
    return number(least, most, "a time in seconds")


def device(*words: str) -> Callable[[str], str]:
    """Where something computes: "cpu", "cuda:N" or one of `words`."""
    allowed = ["cpu", "cuda:N (cuda:0 is the first GPU)", *words]

    def parse(text: str) -> str:
        if text in words or _DEVICE.fullmatch(text):
            return text
        raise argparse.ArgumentTypeError(f"{text!r} is not a device; use {', '.join(allowed[:-1])} or {allowed[-1]}")

    return parse


def address(text: str) -> str:
    """HOST:PORT of a server, as in localhost:8001 or [::1]:8001."""
    host, _, port = text.rpartition(":")
    if host and "/" not in text and re.fullmatch(r"[0-9]{1,5}", port) and 0 < int(port) < 65536:
        return text
    raise argparse.ArgumentTypeError(f"{text!r} is not HOST:PORT, as in localhost:8001")
