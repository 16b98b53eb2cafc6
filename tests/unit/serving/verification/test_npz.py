"""Archives of arrays that nobody should trust: refused by what they say of themselves, before anything is unpacked."""

from __future__ import annotations

import io
import os
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.lib import format as npy

from serving.errors import RepositoryError
from serving.signature.tensors import BF16
from serving.verification import npz


def test_what_numpy_writes_is_read_and_may_be_written_to(tmp_path: Path) -> None:
    arrays: dict[str, Any] = {
        "a/b": np.arange(6, dtype=np.float32).reshape(2, 3),
        "columns": np.asfortranarray(np.arange(6).reshape(2, 3)),
        "strings": np.array([[b"a", b"bcd"]]),
        "empty": np.zeros((0, 3), np.int8),
        "one": np.array(True),
        "halves": np.ones(2, BF16),
    }
    for write in (np.savez, np.savez_compressed):
        write(tmp_path / "a.npz", **arrays)
        read = dict(npz.read(tmp_path / "a.npz"))
        assert list(read) == list(arrays)
        for name, array in arrays.items():
            assert (read[name].dtype, read[name].flags.writeable) == (array.dtype, True)
            np.testing.assert_array_equal(read[name], array)


def header(shape: object, dtype: str = "<f4") -> bytes:
    made = io.BytesIO()
    npy.write_array_header_1_0(made, {"descr": dtype, "fortran_order": False, "shape": shape})
    return made.getvalue()


def text(header: str) -> bytes:
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header.encode()


def archive(**entries: bytes) -> bytes:
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w", zipfile.ZIP_DEFLATED) as written:
        for name, data in entries.items():
            written.writestr(f"{name}.npy", data)
    return made.getvalue()


def pickled() -> bytes:
    made = io.BytesIO()
    np.save(made, np.array([{"a": 1}], object), allow_pickle=True)
    return archive(x=made.getvalue())


def said(size: int, data: bytes) -> bytes:
    """The same, the archive's directory saying that the first entry has `size` bytes unpacked."""
    place = data.index(b"PK\x01\x02")
    return data[: place + 24] + struct.pack("<I", size) + data[place + 28 :]


def encrypted(data: bytes) -> bytes:
    place = data.index(b"PK\x01\x02")
    return data[: place + 8] + struct.pack("<H", 1) + data[place + 10 :]


def twice() -> bytes:
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w") as written:
        for name in ("x.npy", "y.npy"):
            written.writestr(name, header((1,)) + bytes(4))
    return made.getvalue().replace(b"y.npy", b"x.npy")


@pytest.mark.parametrize(
    ("made", "message"),
    [
        (
            lambda: said(npz.MAX_BYTES + 1, archive(x=header((1,)) + bytes(4))),
            rf"holds {npz.MAX_BYTES + 1} bytes unpacked; at most",
        ),
        (lambda: archive(**{f"a{i}": b"" for i in range(npz.MAX_ARRAYS + 1)}), "holds 10001 arrays; at most 10000"),
        (lambda: archive(x=header((10**15,)) + bytes(4)), r"shape \[1000000000000000\], which are not the 4 bytes"),
        (lambda: archive(x=header((2**32, 2**32)) + bytes(4)), "which are not the 4 bytes"),
        (lambda: archive(x=header((-1,)) + bytes(4)), "which are not the 4 bytes"),
        (lambda: archive(x=header((1,)) + bytes(5)), "which are not the 5 bytes"),
        (lambda: archive(x=header((1,), "<c16") + bytes(16)), "of complex128, which is the datatype of no tensor"),
        (lambda: archive(x=header((1,), ">f4") + bytes(4)), "of >f4, which is the datatype of no tensor"),
        (lambda: archive(x=b"\x93NUMPY\x09\x00"), r"version \(9, 0\) of the .npy format"),
        (lambda: archive(x=b"plain text"), "magic string is not correct"),
        (lambda: archive(x=header((10**12,), "|S0")), r"of \|S0, which is the datatype of no tensor"),
        (
            lambda: archive(x=header((npz.MAX_STRINGS + 1,), "|S1")),
            f"holds {npz.MAX_STRINGS + 1} strings in 'x.npy'; at most {npz.MAX_STRINGS} are read",
        ),
        (lambda: archive(x=text("(" * 40)), r"holds what cannot be read \(TokenError\)"),
        (lambda: archive(x=text("-" * 9000 + "1")), r"holds what cannot be read \(MemoryError\)"),
        (pickled, "of object, which is the datatype of no tensor"),
        (lambda: said(200, archive(x=header((10**6,)) + bytes(4 * 10**6))), "Bad CRC-32"),  # no more is unpacked
        (lambda: encrypted(archive(x=header((1,)) + bytes(4))), "holds 'x.npy' encrypted"),
        (twice, "holds 'x.npy', which is no array of its own"),
        (lambda: b"", "File is not a zip file"),
    ],
)
def test_archives_that_are_refused(made: Callable[[], bytes], message: str, tmp_path: Path) -> None:
    path = tmp_path / "golden.npz"
    path.write_bytes(made())
    with pytest.raises(RepositoryError, match=message) as refused:
        list(npz.read(path))
    assert str(path) in str(refused.value)


def test_a_file_is_not_read_whatever_its_size(tmp_path: Path) -> None:
    path = tmp_path / "golden.npz"
    with path.open("wb") as file:
        os.truncate(file.fileno(), npz.MAX_BYTES + 1)
    with pytest.raises(RepositoryError, match=f"has {npz.MAX_BYTES + 1} bytes; at most"):
        list(npz.read(path))


def test_what_is_no_file(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(RepositoryError, match="is a named pipe"):
        list(npz.read(tmp_path / "pipe"))
    with pytest.raises(FileNotFoundError):
        list(npz.read(tmp_path / "nothing"))
