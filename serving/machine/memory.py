"""Giving memory back to the system after a model has gone.

Freeing is not enough. glibc keeps what was freed in the arenas of the threads that had asked for it, and after many
loads a server would hold several times what it uses.
"""

from __future__ import annotations

import ctypes
import functools
import gc
from collections.abc import Callable


def give_back() -> None:
    """Collects what is unreachable and returns free pages to the system, where the C library can (glibc)."""
    gc.collect()
    _trim()(0)


@functools.cache
def _trim() -> Callable[[int], object]:
    try:
        trim: Callable[[int], object] = ctypes.CDLL(None).malloc_trim
    except (AttributeError, OSError):  # another C library
        return lambda pad: None
    return trim
