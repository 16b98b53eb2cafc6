"""The child process in which an export runs the files of others, and in which what it writes is served once.

A file may end the process that loads it. Here that is the child, which is started with the first request, asked by every
export of this process, and started anew after a crash. What it does is `serving.loading.trial`, started by its name.
"""

from __future__ import annotations

import atexit
import contextlib
import dataclasses
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

from export.errors import ExportError
from serving import backends, errors
from serving.backends.base import Candidate, Contents, Options
from serving.child.process import Child
from serving.errors import ChildEnded, ChildRaised
from serving.signature.spec import ModelSpec
from serving.signature.stated import Stated
from serving.signature.tensors import Tensors

PROGRAM = "serving.loading.trial"
SILENCE_SECONDS = 120.0  # what Python computes is a sign of life, a call into a runtime is none
WALL_SECONDS = 3600.0

Made = TypeVar("Made")
_lock = threading.Lock()
_child: Child | None = None


def ask(header: Mapping[str, Any], arrays: Tensors | None = None, *, doing: str) -> tuple[Any, Tensors]:
    """What the child answers. Raises the `StartupError` that it raised, `ChildRaised` for any other error, and `ChildEnded`."""
    global _child  # noqa: PLW0603 - there is one for each process
    with _lock:
        if _child is None or not _child.alive:
            _close()
            _child = Child(PROGRAM, nice=0)  # who waits for it is at the terminal
        message = _child.ask(header, arrays, doing=doing, silence_seconds=SILENCE_SECONDS, wall_seconds=WALL_SECONDS)
    if isinstance(message.header, Mapping) and (kind := message.header.get("refused")):
        raise getattr(errors, kind)(message.header["said"])
    return message.header, message.arrays


@atexit.register
def _close() -> None:
    global _child  # noqa: PLW0603
    if _child is not None:
        _child.close()
        _child = None


class Runtime:
    """A backend, by its name, as its module is; but whatever it does, it does in the child. On the CPU, with one thread."""

    def __init__(self, backend: str) -> None:
        self._backend = backend
        self._careful = False
        self._ended: ChildEnded | None = None
        self.level = ""
        self.remark = ""

    def stated(self, artifact: Path) -> tuple[Mapping[str, Stated], Mapping[str, Stated]]:
        """What the file says of its inputs and outputs. Raises `RepositoryError`, and `ExportError` where that kills it."""
        try:
            header, _ = ask(
                {"do": "stated", "backend": self._backend, "artifact": str(artifact)}, doing="while it was read"
            )
        except ChildEnded as error:
            raise ExportError(_killed(artifact, self._backend, [error])) from error
        inputs, outputs = (
            {name: (datatype, None if shape is None else tuple(shape)) for name, (datatype, shape) in side.items()}
            for side in header["stated"]
        )
        return inputs, outputs

    def contents(self, artifact: Path) -> Contents:
        """What the file shows of how it computes. Raises `RepositoryError`."""
        header = self._asked({"do": "contents", "artifact": str(artifact)}, None, "while it was read")[0]

        def mixed(rows: Mapping[str, int | None]) -> str:
            return str(self._asked({"do": "mixed", "rows": dict(rows)}, None, "while it was read")[0]["mixed"])

        return Contents(constants=header["constants"], texts=header["texts"], mixed=mixed)

    @contextlib.contextmanager
    def careful(self) -> Iterator[None]:
        """Within it a call with sizes that do not fit each other raises, whatever the runtime does otherwise."""
        self._careful = True
        try:
            yield
        finally:
            self._careful = False

    def using(self, artifact: Path, spec: ModelSpec, use: Callable[[Opened], Made]) -> Made:
        """What `use` makes of the open file, at the furthest level of optimisation that does not kill the child: `level`.

        A `remark` says why it is not the furthest of all.
        Raises whatever `use` and the backend's `load` raise, and `ExportError` where the file kills it at every level.
        """
        levels = backends.module(self._backend).LEVELS or ("",)
        ends: list[ChildEnded] = []
        for level in levels:
            self._ended = None
            try:
                made = use(self._open(artifact, spec, level))
            except Exception:
                if self._ended is None:
                    raise
            if self._ended is None:
                self.level = level
                self.remark = f"used at the level '{level}' of optimisation: at '{levels[0]}' {ends[0]}" if ends else ""
                return made
            ends.append(self._ended)
            if not ends[-1].crashed:
                break
        raise ExportError(_killed(artifact, self._backend, ends))

    def _open(self, artifact: Path, spec: ModelSpec, level: str) -> Opened:
        options = dataclasses.asdict(Options(level=level))
        fields = {"artifact": str(artifact), "spec": spec.to_json(), "device": "cpu", "options": options}
        self._asked({"do": "open", **fields}, None, "while it was loaded")
        return Opened(self._run)

    def _run(self, inputs: Tensors, outputs: Sequence[str]) -> Tensors:
        header = {"do": "run", "outputs": list(outputs), "careful": self._careful}
        try:
            return self._asked(header, inputs, "while it computed")[1]
        except ChildRaised as error:
            raise RuntimeError(error.said or error.kind) from None

    def _asked(self, header: Mapping[str, Any], arrays: Tensors | None, doing: str) -> tuple[Any, Tensors]:
        if self._ended is not None:  # another file is open in the next child, or none
            raise self._ended
        try:
            return ask({**header, "backend": self._backend}, arrays, doing=doing)
        except ChildEnded as error:
            self._ended = error
            raise


class Opened:
    """A file that is open in the child; see `serving.backends.base.Backend`."""

    def __init__(self, run: Callable[[Tensors, Sequence[str]], Tensors]) -> None:
        self._run = run

    def run(self, inputs: Tensors, outputs: Sequence[str]) -> Mapping[str, npt.NDArray[Any]]:
        """As the backend would answer; whatever it raises is a `RuntimeError`."""
        return {name: np.array(array) for name, array in self._run(inputs, outputs).items()}

    def close(self) -> None:
        """Nothing: the next file that is opened takes its place."""


def serve_once(folder: Path, name: str, backend: str, level: str = "") -> None:
    """Loads a whole version by the very loader that a server uses, warmed up and all, and closes it again.

    Raises the `StartupError` with which a server would refuse it, and `ExportError` where it kills the child.
    """
    header = {
        "do": "load",
        "name": name,
        "number": 1,
        "path": str(folder.absolute()),
        "config": "",
        "labels": {},
        "defaults": {"backend": backend},
        "candidate": dataclasses.asdict(Candidate(backend, "cpu", 1)),
        "repository": str(folder.absolute().parent),
        "shadow": False,
        "level": level,
    }
    try:
        ask(header, doing="while it was served once")
    except ChildEnded as error:
        raise ExportError(_killed(folder / backends.module(backend).FILE_NAME, backend, [error])) from error


def _killed(artifact: Path, backend: str, ends: Sequence[ChildEnded]) -> str:
    module = backends.module(backend)
    runtime = f"{backend} {module.version()}".strip()
    if not ends[-1].crashed:
        return f"{artifact} cannot be used in {runtime}: {ends[-1]}"
    levels = f", and so at every level of optimisation ({', '.join(module.LEVELS)})" if len(ends) > 1 else ""
    return (
        f"{artifact} kills {runtime}: {ends[0]}{levels}; export it again, in float32 or with another opset, or take another "
        "version of the runtime"
    )
