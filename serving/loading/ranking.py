"""Ways to serve a version, and which of them is best by what was measured: decisions only, nothing runs here.

The fastest candidate need not win. What is within 5 % of it counts as equal, and then fewer threads go first, because
the threads of one model are missing to the next.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal

from commands.table import aligned
from serving import backends
from serving.backends.base import Candidate, Measured
from serving.machine.devices import CPU

ALIKE = 0.05  # closer to the best than this is noise
BETTER = 0.10  # than what serves: by more than this, another one is worth a swap,
MUCH_BETTER = 0.50  # and by more than this, one that brings another framework into the process or takes more threads

Aim = Literal["latency", "throughput"]


def candidates(formats: Sequence[str], places: Sequence[str], threads: int | None, cpus: int) -> list[Candidate]:
    """Every backend of `formats` on every device of `places`.

    On the CPU with `threads`, or, where that is None, with 1, 2, 4 and so on up to all of the `cpus`. A GPU gets one number
    of threads, since they do not compute there.
    """
    powers = {2**power for power in range(cpus.bit_length())}
    counts = sorted(powers | {cpus}) if threads is None else [threads]
    return [
        Candidate(backend, device, count)
        for backend in formats
        for device in places
        for count in (counts if device == CPU else counts[:1])
    ]


def ranked(measured: Sequence[Measured], optimize_for: Aim) -> list[Measured]:
    """Best first, failed ones last.

    Latency: the least time for a call of the fewest rows measured. Throughput: the most rows a second with the most rows
    measured. Those within 5 % of the best are equal: fewer threads go first, then the CPU, then the order of
    `backends.names()`. Among the others the best is looked for again.
    """

    def cost(one: Measured) -> float:
        return cost_of(one, optimize_for)

    def preference(one: Measured) -> tuple[int, bool, int, float]:
        place = one.candidate
        return place.threads, place.device != CPU, backends.names().index(place.backend), cost(one)

    left = [one for one in measured if not one.failed]
    found: list[Measured] = []
    while left:
        limit = min(map(cost, left)) * (1 + ALIKE)
        found += sorted((one for one in left if cost(one) <= limit), key=preference)
        left = [one for one in left if cost(one) > limit]
    return found + [one for one in measured if one.failed]


def cost_of(one: Measured, optimize_for: Aim) -> float:
    """Seconds a row: of a call of the fewest rows measured, or of the most."""
    count = min(one.p50_seconds) if optimize_for == "latency" else max(one.p50_seconds)
    return one.p50_seconds[count] / count


def chosen(
    figures: Sequence[Measured], serving: Candidate, optimize_for: Aim, brought_in: Callable[[str], bool]
) -> Candidate:
    """Who is to serve instead of who serves, or would by the rule; the same one where nobody is worth a change.

    `figures` are best first, as `ranked` has them. Another one is worth it where who serves takes more than 10 % longer, or
    50 % where another runtime has to be `brought_in` (by the name of its backend), or where more threads compute, which are
    missing to other models. Who has failed gives way to the best that has
    not. Of who has not been measured, be it by chance, nothing can be said, and it stays.
    """
    now = next((one for one in figures if one.candidate == serving), None)
    able = [one for one in figures if not one.failed]
    if now is None or now.by_chance or not able:
        return serving
    if now.failed:
        return able[0].candidate
    for one in able:
        there = one.candidate.backend == serving.backend or brought_in(one.candidate.backend)
        dear = not there or one.candidate.threads > serving.threads
        margin = MUCH_BETTER if dear else BETTER
        if cost_of(now, optimize_for) > cost_of(one, optimize_for) * (1 + margin):
            return one.candidate
    return serving


def table(measured: Sequence[Measured], chosen: Candidate | None) -> str:
    """For people: a line for each candidate in the order given, the chosen one marked, failed ones with their sentence."""
    counts = sorted({count for one in measured for count in one.p50_seconds})
    head = ["", "backend", "device", "threads", *(f"us, {count} row{'s' * (count > 1)}" for count in counts)]
    head += [f"rows/s at {count}" for count in counts[-1:]]
    lines = [head]
    for one in measured:
        place = one.candidate
        line = ["*" if place == chosen else "", place.backend, place.device, str(place.threads)]
        if not one.failed:
            line += [_microseconds(one.p50_seconds[count]) for count in counts]
            line += [f"{count / one.p50_seconds[count]:.0f}" for count in counts[-1:]]
        lines.append(line)
    sentences = ["", *map(_sentence, measured)]
    told = aligned(lines, right=range(3, len(head)))
    return "\n".join(line + sentence for line, sentence in zip(told, sentences, strict=True))


def _sentence(one: Measured) -> str:
    if not one.failed:
        return ""
    return f"  could not be measured: {one.failed}" if one.by_chance else f"  cannot serve: {one.failed}"


def _microseconds(seconds: float) -> str:
    value = seconds * 1e6
    return f"{value:.0f}" if value >= 100 else f"{value:.3g}"
