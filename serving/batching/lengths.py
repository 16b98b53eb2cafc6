"""Which lengths are computed together: the cheapest way to cut what waits into batches.

A batch is as long as its longest request, so its rows should be of about one length; but a call costs something whoever is in
it. With the lengths in order, some way to cut them into neighbours is the cheapest, found by dynamic programming over
the lengths, as Fang et al. (TurboTransformers, PPoPP 2021) do it for transformers. What a call takes is linear in its rows
(`serving.batching.costs`), so the best cut before each length is the lowest of some lines, and one pass over the lengths does.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from serving.batching.costs import Cost


def cheapest(rows: Mapping[int, int], cost: Cost) -> list[Sequence[int]]:
    """The lengths of each batch, shortest first; `rows` says how many rows there are of each length.

    Called for every batch, so without calls of its own.
    """
    call, step, row, row_step = cost
    lengths = sorted(rows)
    before = [0]  # for each length, the place of the first that is in a batch with it
    # A line for each place where a batch may begin: rows and time that come before it. At a cost of `a_row` for each row of the
    # batch the line is at time - rows * a_row, which is less the more rows come before, and `a_row` grows from length to length.
    counts, times, begins = [0], [0.0], [0]
    best = total = 0
    for place, steps in enumerate(lengths, 1):
        a_row = row + row_step * steps
        time = times[best] - counts[best] * a_row
        while best + 1 < len(counts) and (lower := times[best + 1] - counts[best + 1] * a_row) <= time:
            time, best = lower, best + 1
        total += rows[steps]
        time += call + step * steps + total * a_row
        before.append(begins[best])
        while (
            len(counts) - best > 1  # the last line is never below both the one before it and the new one
            and (times[-1] - times[-2]) * (total - counts[-1]) >= (time - times[-1]) * (counts[-1] - counts[-2])
        ):
            del counts[-1], times[-1], begins[-1]
        counts.append(total)
        times.append(time)
        begins.append(place)
    return _batches(lengths, before)


def _batches(lengths: Sequence[int], before: Sequence[int]) -> list[Sequence[int]]:
    found: list[Sequence[int]] = []
    end = len(lengths)
    while end:
        begin = before[end]
        found.append(lengths[begin:end])
        end = begin
    return found[::-1]
