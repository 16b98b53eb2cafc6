"""The program of the child process: calls a user's factory, and does with the network what it is asked to.

It is run by its path (`serving/child/pipes.py`) and imports nothing of ours, nor can the user's code: whatever of ours is on the
path is taken off it, so that `models` or `serving` is the user's. The framework's part lies in a file beside this one. It is
loaded by path, too, and the framework before the user's folders come onto the path.

A request is {"do": "start", ...} first, and then {"do": the name of a method of the part's `Network`, ...}. The answer is what
that returns, and what its `after` does; or {"refused": a sentence}; or {"raised": ...} with the `type` of an error, what it
`said`, where `at` in the user's code (FILE:LINE), the `stage` of the start, and the `name` that an import has not found.
"""

from __future__ import annotations

import contextlib
import importlib
import importlib.abc
import importlib.machinery
import importlib.util
import sys
import sysconfig
import traceback
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

OURS = frozenset({"admin", "commands", "export", "loadtest", "lstm_serving", "models", "protos", "serving"})
_MARK = Path("serving", "signature", "spec.py")  # lies in a folder that holds our packages, whichever copy of them
_LIBRARIES = {"site-packages", "dist-packages"}
_MOST_WORDS = 4000

_held: dict[str, Any] = {}


def answer(header: Mapping[str, Any], arrays: Mapping[str, Any], tell: Callable[..., None]) -> Any:
    """Does what a request says; the module's docstring tells how."""
    stage = [header["do"]]
    try:
        if header["do"] == "start":
            return _start(header, stage) | _held["network"].after()
        made = getattr(_held["network"], header["do"])(header, arrays)
        plain, sent = made if isinstance(made, tuple) else (made, {})
        return plain | _held["network"].after(), sent
    except BaseException as error:  # noqa: BLE001 - a user's code raises anything, SystemExit too
        if "part" in _held and isinstance(error, _held["part"].Refused):
            return {"refused": str(error)}
        top = header.get("where", _held.get("where", "")).partition(":")[0].partition(".")[0]
        told = {"type": type(error).__name__, "said": _words(error), "at": place(error, top), "stage": stage[0]}
        raised = {**told, "name": error.name if isinstance(error, ImportError) else None}
        return {"raised": raised, **(_held["network"].after() if "network" in _held else {})}


def _start(header: Mapping[str, Any], stage: list[str]) -> Any:
    """Calls the factory of `where` and hands what it gives to the part; `stage` says how far it has come."""
    stage[0] = "framework"
    _held["part"] = part = _beside(header["framework"])
    users_path(Path.cwd())
    _held["where"] = header["where"]
    name, _, factory = header["where"].partition(":")
    stage[0] = "import"
    module = importlib.import_module(name)
    stage[0] = "name"
    found = getattr(module, factory)
    stage[0] = "call"
    made = found()
    stage[0] = "weights"
    _held["network"] = network = part.Network(made, header["where"], header["weights"])
    return network.facts()


def _beside(framework: str) -> ModuleType:
    """The framework's part, as a module of a name that no user's has."""
    path = Path(__file__).with_name(f"{framework}_part.py")
    spec = importlib.util.spec_from_file_location(f"lstm_serving_{framework}_part", path)
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def users_path(here: Path) -> None:
    """Makes `sys.path` the user's: the working directory first, and no folder that holds our packages.

    Where the working directory itself is such a folder, everything in it can be imported but our packages.
    """
    sys.path[:] = [entry for entry in sys.path if not (Path(entry) / _MARK).is_file()]
    if (here / _MARK).is_file():
        sys.meta_path.insert(0, _BesideOurs(str(here)))
    else:
        sys.path.insert(0, str(here))


class _BesideOurs(importlib.abc.MetaPathFinder):
    def __init__(self, folder: str) -> None:
        self._folder = folder

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        if path is not None or fullname in OURS:
            return None
        return importlib.machinery.PathFinder.find_spec(fullname, [self._folder, *sys.path])


def place(error: BaseException, top: str) -> str:
    """FILE:LINE of the innermost place in the user's code, "" where there is none. `top` is the package of the factory."""
    if isinstance(error, SyntaxError) and error.filename:
        return f"{_shown(error.filename)}:{error.lineno}"
    frames = [(frame.f_code.co_filename, line) for frame, line in traceback.walk_tb(error.__traceback__)]
    theirs = [f"{_shown(file)}:{line}" for file, line in frames if _is_theirs(file, top)]
    return theirs[-1] if theirs else ""


def _is_theirs(file: str, top: str) -> bool:
    path = Path(file)
    if file.startswith("<") or path.parent == Path(__file__).parent or path.name == "pipes.py":
        return False
    if found := _LIBRARIES & set(path.parts):
        inside = path.parts[path.parts.index(found.pop()) + 1]
        return inside in (top, f"{top}.py")
    return Path(sysconfig.get_paths()["stdlib"]) not in path.parents


def _shown(file: str) -> str:
    """Relative to the working directory where it lies in it."""
    with contextlib.suppress(ValueError):
        return str(Path(file).relative_to(Path.cwd()))
    return file


def _words(error: BaseException) -> str:
    if isinstance(error, SystemExit):
        return repr(error.code)
    if isinstance(error, SyntaxError):
        return str(error.msg)
    with contextlib.suppress(Exception):  # an error of somebody else's code may not even have words
        return str(error)[:_MOST_WORDS]
    return ""
