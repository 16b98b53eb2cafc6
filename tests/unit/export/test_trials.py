"""What an export is tried on: the same every time, of every kind, with junk behind every row's end."""

from __future__ import annotations

import numpy as np

from export import trials
from models.checkpoint import Checkpoint
from models.config import LSTMConfig
from tests.unit.export.conftest import trained


def test_trials_are_the_same_every_time_and_of_every_kind(checkpoint: Checkpoint) -> None:
    first, second = trials.make(checkpoint), trials.make(checkpoint)
    for one, other in zip(first, second, strict=True):
        for name, array in one.inputs.items():
            np.testing.assert_array_equal(array, other.inputs[name])
    batches = [trial.inputs for trial in first]
    assert {len(batch["lengths"]) for batch in batches} == {1, 2, 3, 7, 64}
    assert {batch["x"].shape[1] for batch in batches} == {1, 5, 7, 24}
    assert {bool(batch["h0"].any()) for batch in batches} == {True, False}
    assert {trials.padded(trial) for trial in first} == {True, False}
    junk = np.concatenate([batch["x"][:, -1].ravel() for batch in batches])
    assert np.isnan(junk).any()
    assert (junk == np.float32(1e30)).any()


def test_ids_are_padded_with_what_no_vocabulary_has() -> None:
    made = trials.make(trained(LSTMConfig(input="tokens", vocabulary=7, embedding=2, hidden=3, outputs=2)))
    behind = {
        int(trial.inputs["x"][row, -1])
        for trial in made
        for row, length in enumerate(trial.inputs["lengths"])
        if length < trial.inputs["x"].shape[1]
    }
    assert behind == {-1, 2**40, 0}


def test_small_trials_travel_with_the_version(checkpoint: Checkpoint) -> None:
    for trial in trials.make(checkpoint):
        assert trial.golden == (len(trial.inputs["lengths"]) <= 8)


def test_a_name_says_what_is_special(checkpoint: Checkpoint) -> None:
    names = [trial.name for trial in trials.make(checkpoint)]
    assert names[0] == "samples, 3 rows of at most 7 steps, from zero, padded with nan"
    assert "random, 1 rows of at most 1 steps, from zero" in names
    assert len(set(names)) == len(names)


def test_pieces_grow_by_one_step_and_make_up_the_whole() -> None:
    x = np.arange(2 * 8).reshape(2, 8)
    trial = trials.Trial("whole", {"x": x, "lengths": np.array([8, 8])})
    pieces = list(trials.pieces(trial))
    assert [piece["x"].shape[1] for piece in pieces] == [1, 2, 3, 2]
    assert [piece["lengths"].tolist() for piece in pieces] == [[1, 1], [2, 2], [3, 3], [2, 2]]
    np.testing.assert_array_equal(np.concatenate([piece["x"] for piece in pieces], axis=1), x)
