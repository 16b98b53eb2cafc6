"""What is to be written: the last change of each sequence, packed when it is written."""

from __future__ import annotations

import numpy as np

from serving.sequences import records
from serving.sequences.changes import Change, Changes, Rows
from serving.sequences.policy import StateLayout, StateTensor

LAYOUT = StateLayout(
    [StateTensor(name, f"{name}n", np.dtype("<f4"), (2,), np.zeros(2, "<f4")) for name in ("c", "h")], "ab" * 32
)
A, B = ("", 1), ("", 2)


def change(taken: int, state: bytes | Rows) -> Change:
    return Change(records.origin_of("1", LAYOUT), A, 5, taken, 10**18, False, False, b"", state, ())


def test_a_row_of_a_batch_is_that_sequences_state() -> None:
    """Each tensor's row, in the order of the layout."""
    c, h = np.arange(6, dtype="<f4").reshape(3, 2), 10 + np.arange(6, dtype="<f4").reshape(3, 2)
    record = records.unpack(change(1, Rows(((c.tobytes(), 8), (h.tobytes(), 8)), 2)).record())
    assert record.states()["c"].tolist() == [4, 5]
    assert record.states()["h"].tolist() == [14, 15]
    assert record.state == records.unpack(change(1, record.state).record()).state


def test_the_last_change_counts_and_is_taken_once() -> None:
    changes = Changes(lambda: 0)
    changes.note(A, change(1, bytes(16)))
    changes.note(B, None)
    changes.note(A, last := change(2, bytes(16)))
    assert changes
    assert changes.take() == {A: last, B: None}
    assert not changes
    changes.note(A, None)
    changes.forget(A)
    assert not changes.take()
