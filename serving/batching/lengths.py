"""Which lengths are computed together: the cheapest way to cut what waits into batches.

A batch is as long as its longest request, so its rows should be of about one length; but a call costs something whoever is in
it. With the lengths in order, some way to cut them into neighbours is the cheapest, found by dynamic programming over
the lengths, as Fang et al. (TurboTransformers, PPoPP 2021) do it for transformers. What a call takes is linear in its rows
(`serving.batching.costs`), so the best cut before each length is the lowest of some lines, and one pass over the lengths does.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from serving.batching.costs import Cost


def cheapest(rows: Mapping[int, int], cost: Cost) -> list[tuple[int, int]]:
    """The shortest and longest steps of each batch, shortest first; `rows` says how many there are of each length."""
    lengths = sorted(rows)
    before = [0]  # for each length, the place of the first that is in a batch with it
    lines = [(0, 0.0, 0)]  # so many rows, and the time for them, come before the batch that begins there
    best = 0  # of `lines`, for the length that was looked at last
    total = 0
    for place, steps in enumerate(lengths):
        a_row = cost.row + cost.row_step * steps
        while best + 1 < len(lines) and _time(lines[best + 1], a_row) <= _time(lines[best], a_row):
            best += 1
        total += rows[steps]
        time = cost.call + cost.step * steps + total * a_row + _time(lines[best], a_row)
        before.append(lines[best][2])
        line = (total, time, place + 1)
        while len(lines) - best > 1 and _useless(lines[-2], lines[-1], line):
            lines.pop()
        lines.append(line)
    return _ranges(lengths, before)


def _time(line: tuple[int, float, int], a_row: float) -> float:
    """What those before a batch take, less what the rows of the batch would if those were in it, too."""
    rows, time, _ = line
    return time - rows * a_row


def _useless(left: tuple[int, float, int], middle: tuple[int, float, int], right: tuple[int, float, int]) -> bool:
    """Whether `middle` is never below both others."""
    return (middle[1] - left[1]) * (right[0] - middle[0]) >= (right[1] - middle[1]) * (middle[0] - left[0])


def _ranges(lengths: Sequence[int], before: Sequence[int]) -> list[tuple[int, int]]:
    found: list[tuple[int, int]] = []
    end = len(lengths)
    while end:
        begin = before[end]
        found.append((lengths[begin], lengths[end - 1]))
        end = begin
    return found[::-1]
