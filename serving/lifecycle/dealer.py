"""Which requests belong to a share: dealt, not drawn. Of any hundred requests in a row, a share of 0.05 gets five."""

from __future__ import annotations

import threading


class Dealer:
    """Says of every request whether it belongs to a share, evenly: of N in a row, N times the share do."""

    def __init__(self, share: float) -> None:
        self._share = share
        self._owed = 0.0
        self._lock = threading.Lock()

    def __call__(self) -> bool:
        if not self._share:
            return False
        with self._lock:
            self._owed += self._share
            if self._owed < 1 - 1e-9:
                return False
            self._owed -= 1
            return True
