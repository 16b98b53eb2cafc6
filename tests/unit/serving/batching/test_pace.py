"""What a client is told that finds no room: as long as the queue will take at its pace."""

from __future__ import annotations

from serving.batching.pace import LONGEST_MS, SHORTEST_MS, Pace

MS = 1_000_000


def test_the_time_told_is_what_waits_at_the_pace_of_what_was_taken() -> None:
    pace = Pace()
    pace.came(0)
    pace.taken(4, 100, 8 * MS)  # 2 ms each
    assert pace.told_ms(100, 8 * MS) == 200
    for batch in range(1, 100):  # then 1 ms each
        pace.taken(8, 100, 8 * (batch + 1) * MS)
    assert pace.told_ms(100, 800 * MS) == 100


def test_nobody_waits_in_between() -> None:
    """A queue that was empty for an hour is not served at a request an hour."""
    pace = Pace()
    pace.came(0)
    pace.taken(1, 0, 2 * MS)
    pace.came(3600_000 * MS)
    pace.taken(1, 1, 3600_002 * MS)
    assert pace.told_ms(10, 3600_002 * MS) == 20


def test_before_anything_was_taken_it_is_as_long_as_that_took() -> None:
    pace = Pace()
    assert pace.told_ms(5, 77 * MS) == SHORTEST_MS
    pace.came(0)
    assert pace.told_ms(5, 77 * MS) == 77


def test_it_is_neither_at_once_nor_never() -> None:
    pace = Pace()
    pace.came(0)
    pace.taken(1, 1, 1000)
    assert pace.told_ms(2, 1000) == SHORTEST_MS
    assert pace.told_ms(1_000_000_000, 1000) == LONGEST_MS
