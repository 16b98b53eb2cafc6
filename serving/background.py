"""Work in the background that must not be felt by requests: bringing a runtime into the process, loading, verifying.

What stalls a server while it loads is not the work but the interpreter's lock. Each of these held it for long, measured while
another thread wanted it every half millisecond (two cores; the longest holds, in milliseconds):

    loading the shared libraries of TensorFlow 200, of PyTorch 130     ctypes lets go of the lock around a call, `import` does not
    garbage collection, with both in the process 200, meanwhile 120     their objects stay: they are not looked through again
    every other thread's turn 5     0.5 while there is work in the background

One fact that surprises: the collector costs as much long after the import as during it, since each full collection looks at
every object that a framework has made, some 300,000.
"""

from __future__ import annotations

import contextlib
import ctypes
import gc
import importlib
import importlib.util
import os
import sys
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

TURN_SECONDS = 0.0005

_lock = threading.Lock()  # guards the two below
_works = 0
_usual_turn_seconds = 0.0
_importing = threading.Lock()


@contextlib.contextmanager
def work() -> Iterator[None]:
    """While it lasts, a thread that computes in Python lets others take turns more often. May be nested, and on any thread."""
    global _works, _usual_turn_seconds  # noqa: PLW0603 - as the turns themselves, of the process
    with _lock:
        if not _works:
            _usual_turn_seconds = sys.getswitchinterval()
            sys.setswitchinterval(min(TURN_SECONDS, _usual_turn_seconds))
        _works += 1
    try:
        yield
    finally:
        with _lock:
            _works -= 1
            if not _works:
                sys.setswitchinterval(_usual_turn_seconds)


def bring_in(package: str, libraries: Sequence[str] = ()) -> Any:
    """Imports a large package, the first time without being in anybody's way.

    `libraries` are its shared libraries, by their paths within it, in the order in which it loads them itself; the first that
    cannot be loaded, and what follows, is left to the package, which knows better how, or says what is missing.
    """
    if package not in sys.modules:
        with _importing, work():
            collecting = gc.isenabled()
            gc.disable()
            try:
                _load_libraries(package, libraries)
                importlib.import_module(package)
                gc.freeze()
            finally:
                if collecting:
                    gc.enable()
    return importlib.import_module(package)


def _load_libraries(package: str, libraries: Sequence[str]) -> None:
    found = importlib.util.find_spec(package)
    if not libraries or found is None or found.origin is None or os.name != "posix":
        return
    load = ctypes.CDLL(None).dlopen
    load.restype, load.argtypes = ctypes.c_void_p, (ctypes.c_char_p, ctypes.c_int)
    for library in libraries:
        path = Path(found.origin).parent / library
        if not path.is_file() or not load(os.fsencode(path), os.RTLD_NOW):
            return
