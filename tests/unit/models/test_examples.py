"""Splits, batches and scales: nothing lost, nothing twice, nothing learnt from what is held out."""

from __future__ import annotations

import numpy as np
import pytest

from models.config import LSTMConfig
from models.examples import Examples, ExamplesError, batches, in_order, scaling, split, to_batch, with_noise


def classes_of_unequal_size() -> Examples:
    """Forty cases, each recognisable by its only value; thirty of class 0, ten of class 1; 1 to 8 steps."""
    sequences = [np.full((1 + case % 8, 1), case, np.float32) for case in range(40)]
    return Examples(sequences, np.repeat(np.array([0, 1], np.int64), [30, 10]))


def values_per_step() -> Examples:
    sequences = [np.full((steps, 2), steps, np.float32) for steps in (3, 1, 2)]
    return Examples(sequences, [-sequence[:, :1] for sequence in sequences])


def test_a_split_is_stratified_and_complete() -> None:
    examples = classes_of_unequal_size()
    rest, held_out = split(examples, 0.2, np.random.default_rng(0))
    assert np.bincount(np.asarray(held_out.targets)).tolist() == [6, 2]
    cases = [int(sequence[0, 0]) for part in (rest, held_out) for sequence in part.sequences]
    assert sorted(cases) == list(range(40))


@pytest.mark.parametrize("share", [0.001, 0.999])
def test_neither_part_of_a_split_lacks_a_class(share: float) -> None:
    for part in split(classes_of_unequal_size(), share, np.random.default_rng(0)):
        assert set(np.asarray(part.targets).tolist()) == {0, 1}


def test_values_are_split_too() -> None:
    rest, held_out = split(values_per_step(), 0.3, np.random.default_rng(0))
    assert (len(rest), len(held_out)) == (2, 1)


def test_batches_hold_every_case_once() -> None:
    examples = classes_of_unequal_size()
    seen: list[int] = []
    for batch in batches(examples, 7, np.random.default_rng(0)):
        assert batch.x.shape[1] == batch.lengths.max()
        assert len(batch.x) <= 7
        seen += batch.x[:, 0, 0].astype(int).tolist()
    assert sorted(seen) == list(range(40))
    assert seen != list(range(40))
    assert [int(case) for batch in in_order(examples, 7) for case in batch.x[:, 0, 0]] == list(range(40))


def test_targets_per_step_are_padded_like_their_sequences() -> None:
    batch = to_batch(values_per_step())
    assert batch.x[:, :, 0].tolist() == [[3, 3, 3], [1, 0, 0], [2, 2, 0]]
    assert batch.targets[:, :, 0].tolist() == [[-3, -3, -3], [-1, 0, 0], [-2, -2, 0]]


def test_scales_are_of_the_true_steps() -> None:
    config = LSTMConfig(features=2, head="values_per_step")
    scales = scaling(config, values_per_step())
    steps = np.array([3, 3, 3, 1, 2, 2])
    np.testing.assert_allclose(scales["input.mean"], [steps.mean()] * 2, rtol=1e-6)
    np.testing.assert_allclose(scales["output.mean"], [-steps.mean()], rtol=1e-6)
    np.testing.assert_allclose(scales["output.scale"], [steps.std()], rtol=1e-6)


def test_steps_without_a_target_do_not_count() -> None:
    targets = [np.array([[1, np.nan], [np.nan, np.nan], [3, 8]], np.float32)]
    scales = scaling(
        LSTMConfig(features=1, head="values_per_step", outputs=2), Examples([np.ones((3, 1), np.float32)], targets)
    )
    assert scales["output.mean"].tolist() == [2, 8]
    assert scales["output.scale"].tolist() == [1, 1]


def test_small_units_are_scaled_like_large_ones() -> None:
    small = np.array([[1e-9], [3e-9]], np.float32)
    scales = scaling(LSTMConfig(features=1, outputs=2), Examples([small], np.array([0], np.int64)))
    np.testing.assert_allclose(scales["input.scale"], [1e-9], rtol=1e-6)


def test_what_never_changes_is_scaled_by_one() -> None:
    examples = Examples([np.full((4, 1), 5, np.float32)] * 2, np.array([0, 1], np.int64))
    assert scaling(LSTMConfig(features=1, outputs=2), examples)["input.scale"].tolist() == [1]


def test_noise_has_the_deviation_asked_for_and_changes_nothing_else() -> None:
    examples = Examples([np.zeros((100, 2), np.float32)] * 50, np.arange(50))
    noisy = with_noise(examples, np.array([0.5, 20], np.float32), np.random.default_rng(0))
    assert {sequence.dtype for sequence in noisy.sequences} == {np.dtype(np.float32)}
    np.testing.assert_allclose(np.concatenate(list(noisy.sequences)).std(axis=0), [0.5, 20], rtol=0.05)
    assert noisy.targets is examples.targets
    assert not examples.sequences[0].any()


def test_contradictions_are_refused() -> None:
    sequence = np.zeros((2, 1), np.float32)
    with pytest.raises(ExamplesError, match="1 sequences for 2 targets"):
        Examples([sequence], np.zeros(2, np.int64))
    with pytest.raises(ExamplesError, match="at least one step"):
        Examples([sequence[:0]], np.zeros(1, np.int64))
    with pytest.raises(ExamplesError, match="as many steps"):
        Examples([sequence], [np.zeros((3, 1), np.float32)])
    with pytest.raises(ExamplesError, match="class 1 has a single case"):
        split(Examples([sequence] * 3, np.array([0, 0, 1])), 0.5, np.random.default_rng(0))
