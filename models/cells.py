"""What one cell of a text file may hold when a number belongs there.

Python reads `1_000` and `infinity` as numbers; a file that holds them means something else.
"""

from __future__ import annotations

import numpy as np

LARGEST = float(np.finfo(np.float32).max)
SHOWN = 30  # characters of a cell that a message repeats


def number(text: str) -> float:
    """The number in `text`. Raises `ValueError` ("is 'x', which ...") for no number, or one that float32 cannot hold."""
    text = text.strip()
    try:
        value = float("" if "_" in text else text)
    except ValueError:
        raise ValueError(f"is {text[:SHOWN]!r}, which is no number") from None
    if not abs(value) <= LARGEST:
        raise ValueError(f"is {text[:SHOWN]}, which float32 cannot hold")
    return value
