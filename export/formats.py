"""The export formats: each is one file of `export/writers`, `<format>_writer.py`, found by its name; nothing registers itself.

A writer has `BACKEND`, the name of the backend that reads what it writes, and `write`. A writer imports its framework
at the top, so this module imports a writer only when its format is asked for.
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Protocol, cast

from commands import extras
from export import writers
from export.errors import ExportError
from export.precision import Stored
from models.checkpoint import Weights
from models.config import LSTMConfig

ALL = "all"

_SUFFIX = "_writer"


class Writer(Protocol):
    """What a writer module has."""

    BACKEND: str

    def write(
        self, config: LSTMConfig, weights: Weights, path: Path, stored: Mapping[str, Stored] | None = None
    ) -> None:
        """Writes the network to `path` (a file or a folder) with the inputs and outputs of `export.canonical`.

        Matrices that `stored` names are kept as it says and restored when the file is loaded; `weights` holds their
        restored values.
        """


def names() -> tuple[str, ...]:
    """Every format, sorted."""
    modules = (module.name for module in pkgutil.iter_modules(writers.__path__))
    return tuple(sorted(name.removesuffix(_SUFFIX) for name in modules if name.endswith(_SUFFIX)))


def parse(text: str) -> tuple[str, ...]:
    """The formats of a comma-separated list, each once; "all" is every one. Raises `ExportError` for an unknown one."""
    chosen = [name for part in text.split(",") for name in (names() if part == ALL else (part,))]
    if unknown := [name for name in chosen if name not in names()]:
        raise ExportError(f"unknown format {unknown[0]!r}; known are {', '.join(names())} and {ALL}")
    return tuple(dict.fromkeys(chosen))


def writer(name: str) -> Writer:
    """The writer of a format out of `names()`. Raises `ExportError`, saying what to install, when a package is missing."""
    check((name,))
    return cast(Writer, importlib.import_module(f"{writers.__name__}.{name}{_SUFFIX}"))


def check(forms: Iterable[str]) -> None:
    """Raises `ExportError`, saying what to install for all of these formats, when a package is missing.

    What proves a file is among it: without its runtime no file is written.
    """
    if sentence := extras.missing(needs(forms)):
        raise ExportError(sentence)


def needs(forms: Iterable[str]) -> list[extras.Need]:
    """What must be installed to have these formats."""
    return [need for form in forms for need in extras.FORMATS[form]]
