"""What `--data` reads: arrays from an `.npz` file, or the sequences of a `.ts` file, each of its own length.

A `.ts` file is text, one case a line: `1.5,1.6,1.4:0.2,0.1,0.3:label`, channels separated by colons, steps by commas
(the format of the UEA & UCR time series classification archive). The channel is the outer dimension there and the step
in a request, so every case is transposed.
"""

from __future__ import annotations

import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from loadtest.errors import UsageError

Array = npt.NDArray[Any]


def read(path: Path) -> dict[str, Array]:
    """Arrays by name; the cases of a `.ts` file, `[steps, channels]`, are called 0, 1, 2, ...

    Raises `UsageError` for a file that does not exist, cannot be read, or holds nothing.
    """
    try:
        arrays = _cases(path) if path.suffix == ".ts" else _arrays(path)
    except FileNotFoundError as error:
        raise UsageError(f"{path} does not exist") from error
    if not arrays:
        raise UsageError(f"{path} holds no array")
    return arrays


def _arrays(path: Path) -> dict[str, Array]:
    try:
        loaded = np.load(path, allow_pickle=False)
        if not isinstance(loaded, np.lib.npyio.NpzFile):
            raise UsageError(f"{path} holds one nameless array; --data reads .npz files (numpy.savez) and .ts files")
        with loaded as file:
            return {name: file[name] for name in file.files}
    except FileNotFoundError:
        raise
    except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
        raise UsageError(f"{path} is not a readable .npz file: {error}") from error


def _cases(path: Path) -> dict[str, Array]:
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except UnicodeDecodeError as error:
        raise UsageError(f"{path} is not text in UTF-8") from error
    cases: dict[str, Array] = {}
    in_data = False
    for number, line in enumerate(map(str.strip, lines), start=1):
        if in_data and line and not line.startswith("#"):
            *channels, _label = line.split(":")
            try:
                steps = np.array([[float(value) for value in channel.split(",")] for channel in channels]).T
            except ValueError as error:
                raise UsageError(f"{path}:{number} is no case like 1.5,1.6:0.2,0.1:label ({error})") from error
            if steps.ndim != 2:
                raise UsageError(f"{path}:{number} is no case like 1.5,1.6:0.2,0.1:label (it has no colon)")
            cases[str(len(cases))] = steps
        in_data = in_data or line.lower() == "@data"
    return cases
