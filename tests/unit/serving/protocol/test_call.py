"""Answers that are handed over together."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from serving.protocol.call import reply_all


def call_of(told: list[object]) -> type[Any]:
    """A class of calls that tells of the answers that it is handed at once."""

    class Call:
        @staticmethod
        def reply_all(answers: Sequence[tuple[Call, bytes]]) -> None:
            told.append([payload for _, payload in answers])

    return Call


def test_calls_of_one_class_are_answered_at_once_and_in_order() -> None:
    told: list[object] = []
    one = call_of(told)
    reply_all([(one(), b"1"), (one(), b"2")])
    reply_all([(one(), b"3")])
    assert told == [[b"1", b"2"], [b"3"]]


def test_each_class_gets_its_own() -> None:
    told: list[object] = []
    others: list[object] = []
    one, other = call_of(told), call_of(others)
    reply_all([(one(), b"1"), (other(), b"2"), (one(), b"3")])
    assert (told, others) == ([[b"1", b"3"]], [[b"2"]])


def test_nobody_is_told_of_nothing() -> None:
    reply_all([])
