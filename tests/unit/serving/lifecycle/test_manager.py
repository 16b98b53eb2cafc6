"""What is in memory, and who may change it: the parts that no client can drive into a corner on purpose."""

from __future__ import annotations

import threading

import pytest

from serving.errors import NotReady, UnknownModel
from serving.lifecycle.manager import ModelManager
from serving.lifecycle.versions import ModelEntry


def test_while_models_are_loaded_at_start_unknown_is_not_known_yet() -> None:
    """Clients retry what is UNAVAILABLE, and nothing that is called unknown."""
    manager = ModelManager()
    with pytest.raises(NotReady, match=r"Server not ready: models are being loaded\. Request for unknown model: 'm'"):
        manager.acquire("m")
    manager.started()
    with pytest.raises(UnknownModel):
        manager.acquire("m")


def test_two_first_loads_of_a_model_do_not_overtake_each_other() -> None:
    """Both are given the same thing to fill, one after the other, though nothing is known of the model yet."""
    manager = ModelManager()
    got = list[ModelEntry]()

    def second() -> None:
        with manager.loading("m") as known:
            got.append(known)

    with manager.loading("m") as first:
        thread = threading.Thread(target=second)
        thread.start()
        thread.join(0.1)  # enough to get to the lock; were it not, the test would pass as well
        assert got == []
    thread.join(10)
    assert got == [first]
    assert manager.known("m") is None
    assert not manager.is_loading
    with manager.loading("m") as third:
        assert third is not first, "what was never loaded is not kept"
