"""What is in memory, and who may change it: the parts that no client can drive into a corner on purpose."""

from __future__ import annotations

import threading

from serving.entries import Known
from serving.manager import ModelManager


def test_two_first_loads_of_a_model_do_not_overtake_each_other() -> None:
    """Both are given the same thing to fill, one after the other, though nothing is known of the model yet."""
    manager = ModelManager()
    waiting, got = threading.Event(), list[Known]()

    def second() -> None:
        waiting.set()
        with manager.loading("m") as known:
            got.append(known)

    with manager.loading("m") as first:
        thread = threading.Thread(target=second)
        thread.start()
        assert waiting.wait(10)
        while first.holders < 2:
            pass
        assert got == []
    thread.join(10)
    assert got == [first]
    assert manager.known("m") is None
    assert not manager.is_loading
    with manager.loading("m") as third:
        assert third is not first, "what was never loaded is not kept"
