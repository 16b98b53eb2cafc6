"""How often somebody may do what is dear."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from serving.edge.bucket import Bucket

SECOND = 10**9


@pytest.mark.parametrize(
    ("burst", "rate", "at", "let_in"),
    [
        (3, 1.0, [0, 0, 0, 0], [1, 1, 1, 0]),
        (3, 1.0, [5, 5, 5, 5], [1, 1, 1, 0]),
        (1, 1.0, [1, 2, 3], [1, 1, 1]),
        (1, 1.0, [1, 1.5, 2], [1, 0, 0]),  # one too many costs as well
        (1, 1.0, [1, 1, 3], [1, 0, 1]),
        (2, 10.0, [1, 1, 1.1, 1.1], [1, 1, 1, 0]),
        (2, 1.0, [1, 1, 1000, 1000, 1000], [1, 1, 1, 1, 0]),  # what was not used is not kept beyond the burst
        (1, 0.0, [1, 10**6], [1, 0]),
    ],
)
def test_so_many_at_once_and_so_many_a_second(
    burst: int, rate: float, at: Sequence[float], let_in: Sequence[int]
) -> None:
    bucket = Bucket(burst, rate)
    # The clock does not begin at 0.
    assert [bucket.take(int((1 + seconds) * SECOND)) for seconds in at] == [bool(each) for each in let_in]
