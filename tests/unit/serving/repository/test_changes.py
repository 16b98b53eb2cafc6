"""What to do about a repository that has changed: every case of three looks at one model, and several models at once."""

from __future__ import annotations

import pytest

from serving.repository.changes import Actions, decide

GONE = None


@pytest.mark.parametrize(
    ("acted_on", "before", "now", "load", "unload"),
    [
        # What was loaded, what the last look has seen, what this one sees.
        ("a", "a", "a", False, False),
        (GONE, GONE, GONE, False, False),
        (GONE, GONE, "a", False, False),  # it has just appeared, and may be half there
        (GONE, "a", "b", False, False),  # it still grows
        (GONE, "b", "b", True, False),
        ("a", "a", "b", False, False),
        ("a", "b", "c", False, False),
        ("a", "b", "b", True, False),
        ("a", "b", "a", False, False),  # back to what is loaded
        ("a", "a", GONE, False, False),  # it may be about to be replaced
        ("a", GONE, GONE, False, True),
        ("a", GONE, "a", False, False),  # it was away for a moment
        ("a", GONE, "b", False, False),
        (GONE, "a", GONE, False, False),
    ],
)
def test_a_change_is_acted_upon_when_it_is_seen_twice(
    acted_on: str | None, before: str | None, now: str | None, load: bool, unload: bool
) -> None:
    looks = [{"m": seen} if seen else {} for seen in (acted_on, before, now)]
    assert decide(*looks) == Actions(load=["m"] * load, unload=["m"] * unload)


def test_every_model_is_decided_for_itself_and_told_by_name() -> None:
    acted_on = {"same": 1, "changed": 1, "gone": 1, "another gone": 1}
    now = {"same": 1, "changed": 2, "new": 1, "another new": 1, "growing": 5}
    before = {**now, "growing": 4}
    assert decide(acted_on, before, now) == Actions(
        load=["another new", "changed", "new"], unload=["another gone", "gone"]
    )
    assert decide({}, {}, {}) == Actions(load=[], unload=[])
