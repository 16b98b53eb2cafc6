"""What a client is told that finds no room: as long as the queue will take at its pace."""

from __future__ import annotations

import threading

from serving.batching.pace import LONGEST_MS, SHORTEST_MS, Pace

MS = 1_000_000


def batch(pace: Pace, requests: int, began_ms: int, took_ms: int) -> None:
    pace.taken(requests, began_ms * MS)
    pace.back((began_ms + took_ms) * MS)


def test_the_time_told_is_what_waits_at_the_pace_of_what_was_computed() -> None:
    pace = Pace()
    batch(pace, 4, 0, 8)
    assert pace.told_ms(100, 8 * MS) == 200
    for number in range(1, 100):
        batch(pace, 8, 8 * number, 8)
    assert pace.told_ms(100, 800 * MS) == 100


def test_time_in_which_nobody_waits_does_not_count() -> None:
    pace = Pace()
    batch(pace, 1, 0, 2)
    pace.back(3600_000 * MS)  # it had nothing to do
    batch(pace, 1, 3600_000, 2)
    assert pace.told_ms(10, 3600_002 * MS) == 20


def test_two_workers_are_twice_as_fast() -> None:
    pace = Pace()
    batch(pace, 1, 0, 20)
    pace.taken(1, 20 * MS)
    other = threading.Thread(target=lambda: pace.taken(1, 20 * MS))
    other.start()
    other.join()
    assert pace.told_ms(10, 20 * MS) == 100


def test_before_anything_was_computed_it_is_as_long_as_that_takes() -> None:
    pace = Pace()
    assert pace.told_ms(5, 77 * MS) == SHORTEST_MS
    pace.taken(1, 0)
    assert pace.told_ms(5, 77 * MS) == 77


def test_it_is_neither_at_once_nor_never() -> None:
    pace = Pace()
    batch(pace, 1000, 0, 1)
    assert pace.told_ms(2, MS) == SHORTEST_MS
    assert pace.told_ms(1_000_000_000, MS) == LONGEST_MS
