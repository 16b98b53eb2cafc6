"""The contract of an inference backend, on one screen.

A module in this folder is a backend, and its file name is its name. Beside a class that satisfies `Backend` it has:

    FILE_NAME: str                    what it reads inside a version folder ("model.onnx")
    PACKAGE: str                      the Python package of its runtime; "" where there is none to bring in
    ONE_BY_ONE: bool                  what it is loaded with belongs to the process, so that loads take turns
    TRITON_NAMES: tuple[str, ...]     what config.pbtxt calls it: first the `backend`, then the `platform`
    TEXT_ONLY: bool                   BYTES tensors hold UTF-8 text, as the runtime carries nothing else
    LEVELS: tuple[str, ...]           how far it optimises a file, furthest first: what kills the process at one level is tried
                                      at the next. Empty for what runs in Python alone and so kills nothing
    def version() -> str
        The version of the runtime that is installed, "" if none is; imports nothing.
    def available(device: str) -> None
        Raises BackendUnavailable, saying what is missing, when it cannot run on `device` ("cpu" or "cuda:N") here.
    def bring_in() -> None
        Imports the runtime, which `load` does otherwise. Raises `ImportError`, or whatever importing it raises.
    def stated(artifact: Path) -> tuple[Mapping[str, Stated], Mapping[str, Stated]]
        What the file itself says of its inputs and outputs, in its own layout. Raises RepositoryError when it cannot be
        read, or says nothing.
    def contents(artifact: Path) -> Contents
        What the file shows of how it computes without being run. Raises RepositoryError when it cannot be read.
    def careful() -> ContextManager[None]
        Within it a call with sizes that do not fit each other raises, whatever the runtime does otherwise.
    def lost(error: Exception) -> str
        Why a backend that raised this can answer nothing more, OUT_OF_MEMORY or DEVICE_LOST; "" if it may.
    def load(artifact: Path, spec: ModelSpec, device: str, options: Options) -> Backend
        Raises RepositoryError when the artefact cannot be read, BackendUnavailable when the device cannot take it.

`available` stays cheap for "cpu" (it looks for the package, it does not import it); the heavy import happens in `load`.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import importlib.metadata
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from serving.backends.plain_words import plain
from serving.machine.devices import CPU
from serving.signature.spec import ModelSpec
from serving.signature.stated import Stated
from serving.signature.tensors import Tensors

SMALL = 64  # elements of a constant that `contents` looks into
OUT_OF_MEMORY, DEVICE_LOST = "out_of_memory", "device_lost"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Options:
    """What an operator decides for a backend.

    `threads` is the number of compute threads within one call. LSTM steps are small and depend on each other, so one
    thread is the fastest for most of them. `allow_tf32` lets CUDA round FP32 products to 10 bits of mantissa. `level` is one of
    the backend's `LEVELS`, or empty for its furthest.
    """

    threads: int = 1
    allow_tf32: bool = False
    level: str = ""


@dataclasses.dataclass(frozen=True)
class Candidate:
    """A way to serve a version: the backend's name, "cpu" or "cuda:N", and the compute threads within a call."""

    backend: str
    device: str
    threads: int

    def __str__(self) -> str:
        return self.backend if self.device == CPU else f"{self.backend}@{self.device}"


@dataclasses.dataclass(frozen=True)
class Measured:
    """The median seconds of a call by its number of rows; or, in `failed`, the sentence that says why there are none.

    `by_chance` says that it failed for a reason that need not be its own: its process was ended, or said nothing for too long,
    or memory or the device was lacking.
    Then nothing is known of it: it was not measured.
    """

    candidate: Candidate
    p50_seconds: Mapping[int, float] = dataclasses.field(default_factory=dict)
    failed: str = ""
    by_chance: bool = False


@dataclasses.dataclass(frozen=True, kw_only=True)
class Contents:
    """What a file shows of how it computes: numbers and texts that it holds, with which something special may happen.

    `mixed` says in what way rows that lie along these axes of its inputs (None: an input that all rows share) touch each
    other, as far as its graph shows; "" if nothing is seen. With `may_be_empty` free axes of size 0 are answered, or refused by
    an exception; where nobody knows, a kernel may end the process.
    """

    constants: Sequence[float] = ()
    texts: Sequence[str] = ()
    mixed: Callable[[Mapping[str, int | None]], str] = lambda rows: ""
    may_be_empty: bool = False


class Backend(Protocol):
    """A loaded model on one device, owned by one thread: never called from two at once, but on a second one when it takes long.

    `run` takes every input of the spec (axis 0 is the rows, equal in all of them; arrays may be read-only views and are
    not kept) and returns the `outputs` asked for, each freshly allocated and row for row in the order of the inputs.
    Whatever it raises fails that batch and nothing else. `close` frees memory and threads; nothing is called after it.
    """

    def run(self, inputs: Tensors, outputs: Sequence[str]) -> Tensors: ...

    def close(self) -> None: ...


class BackendModule(Protocol):
    """What a module in this folder has."""

    FILE_NAME: str
    PACKAGE: str
    ONE_BY_ONE: bool
    TRITON_NAMES: tuple[str, ...]
    TEXT_ONLY: bool
    LEVELS: tuple[str, ...]

    def version(self) -> str: ...

    def available(self, device: str) -> None: ...

    def bring_in(self) -> None: ...

    def stated(self, artifact: Path) -> tuple[Mapping[str, Stated], Mapping[str, Stated]]: ...

    def contents(self, artifact: Path) -> Contents: ...

    def careful(self) -> AbstractContextManager[None]: ...

    def lost(self, error: Exception) -> str: ...

    def load(self, artifact: Path, spec: ModelSpec, device: str, options: Options) -> Backend: ...


def distinct(arrays: Iterable[npt.NDArray[Any]]) -> list[float]:
    """The numbers of constants that are small, each once, those of the smallest first: weights seldom stand alone."""
    small = sorted((array for array in arrays if array.size <= SMALL and array.dtype.kind in "fiub"), key=np.size)
    return list(dict.fromkeys(float(number) for array in small for number in array.ravel()))


def first_line(error: Exception) -> str:
    """What a runtime says first, headings and places in its C++ left out; the rest of its message is its own call stack."""
    lines = [line.strip() for line in plain(str(error)).splitlines() if line.strip()]
    line = next((line for line in lines if not line.endswith(":")), lines[0] if lines else type(error).__name__)
    return trimmed(line)


def trimmed(text: str, most: int = 300) -> str:
    """At most so many characters of what a runtime says, with dots where the rest is left out."""
    return text if len(text) <= most else f"{text[:most]}..."


def artifact_bytes(artifact: Path) -> int:
    """The size of a file, or of all files in a folder and its subfolders."""
    return sum(file.stat().st_size for file in _files(artifact))


def artifact_digest(artifact: Path) -> str:
    """SHA-256 (hex) of a file, or of names and contents of all files in a folder and its subfolders."""
    return files_digest(artifact_files(artifact))


def artifact_files(artifact: Path) -> dict[Path, str]:
    """The files of a folder and its subfolders by their names there; of a file itself that name is "."."""
    return {file: str(file.relative_to(artifact)) for file in _files(artifact)}


def files_digest(files: Mapping[Path, str]) -> str:
    """SHA-256 (hex) of files by name; of one whose name is ".", of its contents alone. Raises `OSError`."""
    digest = hashlib.sha256()
    for path, name in sorted(files.items()):
        digest.update(name.encode(errors="surrogateescape") if name != "." else b"")
        with path.open("rb") as file:
            while piece := file.read(1024 * 1024):
                digest.update(piece)
    return digest.hexdigest()


def _files(artifact: Path) -> list[Path]:
    """The files of a folder and its subfolders, or the one file; what is neither, such as a pipe, is left out."""
    found = artifact.rglob("*") if artifact.is_dir() else [artifact]
    return sorted(file for file in found if file.is_file())


def installed_version(*distributions: str) -> str:
    """The version of the first of these packages that is installed, "" if none is."""
    for distribution in distributions:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            return importlib.metadata.version(distribution)
    return ""


def cuda_lost(error: Exception) -> str:
    """What a message about CUDA says of the device: no memory left, or an error that sticks to the process's context."""
    text = str(error).lower()
    if "cuda" not in text and "cudnn" not in text and "cublas" not in text and "bfcarena" not in text:
        return ""
    if "out of memory" in text or "failed to allocate" in text or "alloc_failed" in text:
        return OUT_OF_MEMORY
    sticky = (
        "illegal",
        "unspecified launch",
        "device-side assert",
        "ecc",
        "fell off",
        "lost",
        "no cuda-capable",
        "unavailable",
    )
    return DEVICE_LOST if any(word in text for word in sticky) else ""
