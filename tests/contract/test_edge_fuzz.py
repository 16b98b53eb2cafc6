"""Changed conversations against the edge on nghttp2, some hundred of them; `make fuzz-edge` has them for ten minutes."""

from __future__ import annotations

import random

import pytest

from tests.support.edge_fuzz import CHANGES, Change, changed, fuzz
from tests.support.edge_port import bystander, edge
from tests.support.edge_recordings import CONVERSATIONS, recordings
from tests.support.frames import ACK, NO_ERROR, PING, SETTINGS, Raw, frame

CHANGED = 400


def test_changed_conversations_hurt_nobody() -> None:
    ended = fuzz(range(CHANGED), conversations_a_round=CHANGED // 8)
    assert ended.total() == CHANGED
    assert ended["went on"] > CHANGED / 10, "else they are too wrong to get anywhere"
    assert ended["ended with code 1"] > CHANGED / 10, "else they are not wrong enough"


@pytest.mark.parametrize("name", [conversation.__name__ for conversation in CONVERSATIONS])
def test_what_was_recorded_is_right_as_it_stands(name: str) -> None:
    with edge() as server, bystander(server), Raw(server.port) as client:
        client.send(*(each for each in recordings()[name] if each[3:5] != bytes((SETTINGS, ACK))))
        client.send(frame(PING, 0, 0, b"the last"))
        client.read_until(lambda: client.pong == b"the last")
        assert client.goodbye.code in (None, NO_ERROR)
        assert not client.closed


@pytest.mark.parametrize("change", CHANGES, ids=lambda change: change.__name__)
def test_each_change_changes_something_and_every_seed_the_same(change: Change) -> None:
    kept, seeds = recordings()["unary"], range(30)
    made = []
    for seed in seeds:
        frames = list(kept)
        change(random.Random(seed), frames)
        made.append(frames)
    assert sum(frames != kept for frames in made) > len(seeds) / 2
    assert [changed(seed)[1] for seed in seeds] == [changed(seed)[1] for seed in seeds]
