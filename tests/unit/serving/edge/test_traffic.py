"""What connections share: how often somebody may do what is dear, and how a turn's requests are handed up."""

from __future__ import annotations

from concurrent.futures import Executor

from serving.edge.traffic import Limits, Traffic


class AskedCall: ...


def traffic(handed_up: list[object]) -> Traffic:
    return Traffic({}, handed_up.append, Limits(1000), None, Executor(), lambda code: None)


def test_what_is_asked_in_a_turn_is_handed_up_at_once_and_once() -> None:
    handed_up: list[object] = []
    shared, calls = traffic(handed_up), [AskedCall() for _ in range(3)]
    shared.hand_up()
    assert handed_up == [], "a turn in which nothing was asked"
    shared.burst += [(b"0", calls[0]), (b"1", calls[1])]  # type: ignore[list-item]
    shared.hand_up()
    shared.hand_up()
    shared.burst.append((b"2", calls[2]))  # type: ignore[arg-type]
    shared.hand_up()
    assert handed_up == [[(b"0", calls[0]), (b"1", calls[1])], [(b"2", calls[2])]]
    assert shared.turn == 4
