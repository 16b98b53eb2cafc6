"""What a model has left behind goes back to the system."""

from __future__ import annotations

import weakref

from serving.machine import memory


class Node:
    """Part of a circle, which counting references alone never frees."""

    other: Node


def test_what_nobody_can_reach_is_collected() -> None:
    first, second = Node(), Node()
    first.other, second.other = second, first
    left = weakref.ref(first)
    del first, second
    memory.give_back()
    memory.give_back()  # as often as anybody likes
    assert left() is None
