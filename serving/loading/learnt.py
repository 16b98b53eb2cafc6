"""What batches have taken while versions served, kept beside what was measured of them, for the next load of the same files."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from serving.backends.base import Candidate
from serving.batching.costs import MOST_CELLS, Cell
from serving.errors import StartupError
from serving.loading.kept import Kept, Key
from serving.repository.folders import VersionFolder

ENOUGH_CALLS = 1000  # of a backend while it served, before which a load finds out as much by itself
MOST_KEPT = 128  # sizes, those that came most often
# Of a cell that can be believed.
MOST_ROWS, MOST_STEPS, MOST_CALLS = 10**6, 10**7, 10**15
LEAST_NS, MOST_NS = 100, 10**14


class KeyOf(Protocol):
    """What the measurements of candidates are remembered by. Raises `OSError`."""

    def __call__(self, folder: VersionFolder, candidates: Sequence[Candidate]) -> Key: ...


class Learnt:
    """Finds and keeps the costs of versions by files, runtimes, machine and candidate. For any thread; nothing is raised."""

    def __init__(self, kept: Kept, key_of: KeyOf) -> None:
        self._kept = kept
        self._key_of = key_of

    def find(self, folder: VersionFolder, candidate: Candidate) -> Sequence[Cell]:
        """What was learnt of this version; nothing where nothing is known."""
        with contextlib.suppress(OSError, StartupError):  # whoever loads it meets that, too
            return self._kept.find(folder.path.parent, self._key(folder, candidate), _checked) or ()
        return ()

    def keep(self, folder: VersionFolder, candidate: Candidate, cells: Sequence[Cell]) -> None:
        """Keeps what was learnt, if it is enough. Where nothing can be written, the next load begins anew."""
        if sum(cell.calls for cell in cells) < ENOUGH_CALLS:
            return
        often = sorted(cells, key=lambda cell: cell.calls, reverse=True)[:MOST_KEPT]
        written = [[round(cell.rows, 2), round(cell.steps, 2), round(cell.ns), cell.calls] for cell in often]
        with contextlib.suppress(OSError, StartupError):  # the version has been taken away
            self._kept.keep(folder.path.parent, self._key(folder, candidate), {"costs": written})

    def _key(self, folder: VersionFolder, candidate: Candidate) -> Mapping[str, Any]:
        return {"costs_of": dataclasses.asdict(candidate), **self._key_of(folder, [candidate])}


def _checked(fields: Mapping[str, Any]) -> Sequence[Cell]:
    """The cells of an entry. Raises `ValueError`, or another error of what does not fit."""
    cells = [Cell(*cell) for cell in fields["costs"]]
    sane = all(
        all(type(one) in (int, float) for one in cell)
        and type(cell.calls) is int
        and 1 <= cell.rows <= MOST_ROWS
        and 1 <= cell.steps <= MOST_STEPS
        and LEAST_NS <= cell.ns <= MOST_NS
        and 1 <= cell.calls <= MOST_CALLS
        for cell in cells
    )
    if not sane or len(cells) > MOST_CELLS:
        raise ValueError("it holds costs that no batch has")
    return cells
