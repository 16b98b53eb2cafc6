"""Work in the background of a server that answers: bringing a runtime into the process, loading, verifying, warming up.

What stalls requests meanwhile is not the work but the interpreter's lock, and then the processors. Measured on two cores, with
a thread beside it that wanted the lock every half millisecond; the longest it was held, in milliseconds:

    200, 130   the shared libraries of TensorFlow, of PyTorch: loaded first, through ctypes, which lets go of the lock
    200, 120   garbage collection after a model has gone, and during an import: put off, and the frameworks are left out
    5 a turn   whatever computes in Python: 0.5 a turn

The collector costs as much long after an import as during it, since each full collection looks at every object that a
framework has made, some 300,000.
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
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

TURN_SECONDS = 0.0005
STRETCH_SECONDS = 0.001  # of work, before it may have to pause
LONGEST_PAUSE_SECONDS = 0.05
REST = 2.0  # times the work
REST_OF_IMPORTS = 1.0  # there is so much of them
CONTENDED = 0.8  # a thread that got less of a processor than this share of the time is not alone

_lock = threading.Lock()  # guards the two below
_works = 0
_usual_turn_seconds = 0.0
_importing = threading.Lock()
_elsewhere = threading.local()


@contextlib.contextmanager
def work() -> Iterator[None]:
    """While it lasts, threads that compute in Python take shorter turns, and what looks at `Pauses` makes some.

    On any thread, several at a time. What is loaded before a server is ready is loaded without: nobody waits for it less.
    """
    global _works, _usual_turn_seconds  # noqa: PLW0603 - of the process, as the length of a turn is
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


def computed_elsewhere(seconds: float) -> None:
    """The calling thread has waited for another one, which has computed so long for it."""
    _elsewhere.seconds = getattr(_elsewhere, "seconds", 0.0) + seconds


def _computed_seconds() -> float:
    """For which the calling thread has had a processor, or another one for it."""
    return time.thread_time() + float(getattr(_elsewhere, "seconds", 0.0))


class Pauses:
    """Lets the thread that has made it sleep `rest` times as long as it has worked, if it had to wait for its turn meanwhile.

    Then others want what it takes. Where there is no `work`, or nobody is in its way, nothing happens.
    """

    def __init__(self, rest: float = REST) -> None:
        self._rest = rest
        self._begun, self._computed = time.perf_counter(), _computed_seconds()

    def look(self, *_: object) -> None:
        """Between two steps of the work."""
        elapsed = time.perf_counter() - self._begun
        if elapsed < STRETCH_SECONDS or not _works:
            return
        if _computed_seconds() - self._computed < CONTENDED * elapsed:
            time.sleep(min(self._rest * elapsed, LONGEST_PAUSE_SECONDS))
        self._begun, self._computed = time.perf_counter(), _computed_seconds()


def bring_in(package: str, libraries: Sequence[str] = ()) -> Any:
    """Imports a large package, the first time without being in anybody's way.

    `libraries` are its shared libraries, by their paths within it, in the order in which it loads them itself; the first that
    cannot be loaded, and what follows, is left to the package, which knows better how, or says what is missing.
    """
    if package not in sys.modules:
        with _importing, _uncollected():
            if _works:
                _load_libraries(package, libraries)
            with pausing(REST_OF_IMPORTS):
                importlib.import_module(package)
            gc.freeze()
    return importlib.import_module(package)


@contextlib.contextmanager
def _uncollected() -> Iterator[None]:
    collecting = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if collecting:
            gc.enable()


@contextlib.contextmanager
def pausing(rest: float = REST) -> Iterator[None]:
    """This thread makes pauses within a package's own Python code too, whose steps are not ours.

    It stands where a profiler would and is called with every call, which makes an import take up to twice as long, and is
    why only a server that serves does it. A profiler that is there already stays.
    """
    if not _works or sys.getprofile() is not None:
        yield
        return
    sys.setprofile(Pauses(rest).look)
    try:
        yield
    finally:
        sys.setprofile(None)


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
