"""The export formats: each is one file of `export/writers`, `<format>_writer.py`, found by its name; nothing registers itself.

A writer has `BACKEND`, the name of the backend that reads what it writes, and `write`. A writer imports its framework
at the top, so this module imports a writer only when its format is asked for.
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Mapping
from pathlib import Path
from typing import Protocol, cast

from export import writers
from export.errors import ExportError
from export.precision import Stored
from models.checkpoint import Weights
from models.config import LSTMConfig

ALL = "all"

_SUFFIX = "_writer"
_EXTRAS = {
    "onnx": "train",
    "torch": "torch",
    "tensorflow": "tensorflow",
    "keras": "tensorflow",  # they come with it
    "h5py": "tensorflow",
}


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
    try:
        return cast(Writer, importlib.import_module(f"{writers.__name__}.{name}{_SUFFIX}"))
    except ModuleNotFoundError as error:
        raise missing_package(f"format {name}", error) from error


def missing_package(what: str, error: ModuleNotFoundError) -> ExportError:
    """The sentence about a package that `what` needs."""
    extra = _EXTRAS.get(error.name or "", "train")
    return ExportError(f"{what} needs the package {error.name}: pip install 'lstm-serving[{extra}]'")
