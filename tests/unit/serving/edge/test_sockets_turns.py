"""The turns of the loop: nothing that was asked for waits for something else to happen."""

from __future__ import annotations

import queue

from serving.edge.links import Timeouts
from serving.edge.sockets import Loop
from tests.support.grpc_port import WAIT_SECONDS


def test_what_an_action_has_asked_for_is_handed_up_though_nothing_else_comes() -> None:
    """An answer makes room for a message that has waited; there is no connection whose tick would wake the loop."""
    asked, handed_up = list[str](), queue.SimpleQueue[str]()

    def turn() -> None:
        if asked:
            handed_up.put(asked.pop())

    loop = Loop("127.0.0.1", 0, lambda _link, _first: None, turn, most=1, timeouts=Timeouts())
    loop.start()
    try:
        loop.post(asked.append, "a message")
        assert handed_up.get(timeout=WAIT_SECONDS) == "a message"
    finally:
        loop.post(lambda _: loop.end())
        assert loop.join(WAIT_SECONDS)
