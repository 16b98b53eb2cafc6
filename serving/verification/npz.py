"""An .npz file read as something that anybody may have written: nothing is unpickled, and nothing claims memory unread.

What the archive's directory says of sizes is held to a limit before anything is unpacked, no entry gives more than it says,
and an array's header may claim no more elements than its entry has bytes for.
"""

from __future__ import annotations

import tokenize
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

import numpy as np
import numpy.typing as npt
from numpy.lib import format as npy

from serving.errors import RepositoryError
from serving.machine import files
from serving.signature.tensors import DTYPES

MAX_BYTES = 256 * 1024 * 1024
MAX_ARRAYS = 10_000
MAX_STRINGS = 2**24  # of an array; each becomes an object, which is many times what it takes in the file
_HEADERS = {(1, 0): npy.read_array_header_1_0, (2, 0): npy.read_array_header_2_0}
_PACKED = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)


def read(path: Path) -> Iterator[tuple[str, npt.NDArray[Any]]]:
    """The arrays by name, in order. Raises `RepositoryError` naming the file, and `FileNotFoundError`."""
    if not files.is_plain(path):
        raise FileNotFoundError(path)
    if (size := path.stat().st_size) > MAX_BYTES:
        raise RepositoryError(f"{path} has {size} bytes; at most {MAX_BYTES} are read")
    try:
        with zipfile.ZipFile(path) as archive:
            entries = archive.infolist()
            _check(entries)
            for entry in entries:
                with archive.open(entry) as file:
                    yield entry.filename.removesuffix(".npy"), _array(file, entry)
    except RepositoryError as error:
        raise RepositoryError(f"{path} is not a usable set of golden samples: it {error}") from error
    except (ValueError, OSError, EOFError, RuntimeError, NotImplementedError, zipfile.BadZipFile, zlib.error) as error:
        raise RepositoryError(f"{path} is not a usable set of golden samples: {error}") from error
    except (MemoryError, SyntaxError, tokenize.TokenError) as error:  # what NumPy lets through of Python's own parser
        raise RepositoryError(
            f"{path} is not a usable set of golden samples: it holds what cannot be read ({type(error).__name__})"
        ) from error


def _check(entries: list[zipfile.ZipInfo]) -> None:
    if len(entries) > MAX_ARRAYS:
        raise RepositoryError(f"holds {len(entries)} arrays; at most {MAX_ARRAYS} are read")
    unpacked = sum(entry.file_size for entry in entries)
    if unpacked > MAX_BYTES:
        raise RepositoryError(f"holds {unpacked} bytes unpacked; at most {MAX_BYTES} are read")
    seen: set[str] = set()
    for entry in entries:
        if not entry.filename.endswith(".npy") or entry.filename in seen:
            raise RepositoryError(f"holds {entry.filename!a}, which is no array of its own")
        seen.add(entry.filename)
        if entry.flag_bits & 1 or entry.compress_type not in _PACKED:
            raise RepositoryError(f"holds {entry.filename!a} encrypted, or packed in a way that NumPy does not pack")


def _array(file: IO[bytes], entry: zipfile.ZipInfo) -> npt.NDArray[Any]:
    version = npy.read_magic(file)
    if version not in _HEADERS:
        raise RepositoryError(
            f"holds {entry.filename!a} in version {version} of the .npy format; known are 1.0 and 2.0"
        )
    shape, by_columns, dtype = _HEADERS[version](file)
    if dtype.hasobject or not dtype.itemsize or (dtype.kind != "S" and dtype not in DTYPES.values()):
        raise RepositoryError(f"holds {entry.filename!a} of {dtype}, which is the datatype of no tensor")
    count = 1
    for size in shape:
        count *= size
    if dtype.kind == "S" and count > MAX_STRINGS:
        raise RepositoryError(f"holds {count} strings in {entry.filename!a}; at most {MAX_STRINGS} are read")
    begins = file.tell()
    if min(shape, default=0) < 0 or count * dtype.itemsize != entry.file_size - begins:
        raise RepositoryError(
            f"holds {entry.filename!a} of {dtype} and shape {list(shape)[:16]}, which are not the "
            f"{entry.file_size - begins} bytes that it has"
        )
    data = file.read(count * dtype.itemsize)
    if len(data) != count * dtype.itemsize or file.read(1):
        raise RepositoryError(f"holds {entry.filename!a}, which ends too early")
    return np.frombuffer(bytearray(data), dtype).reshape(shape, order="F" if by_columns else "C")
