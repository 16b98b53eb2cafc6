"""What a shadow's answer is held to, and how little it may cost whoever is shadowed."""

from __future__ import annotations

import dataclasses
import gc
import weakref
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from serving.batching.pending import Pending
from serving.errors import ComputeFailed
from serving.lifecycle import shadow
from serving.lifecycle.comparison import Comparison, ShadowCounts
from serving.lifecycle.shadow import Shadow, as_taken_by, fits
from serving.loading import loader
from serving.signature.tensors import Tensors, TensorSpec
from serving.telemetry.timeline import Timeline
from tests.support import fake_models
from tests.support.gated import Answer, GatedBackend
from tests.support.loading import wanted

PLAIN = fake_models.spec()


def larger(tensor: TensorSpec) -> TensorSpec:
    return dataclasses.replace(tensor, shape=(-1, 1, 8)) if tensor.shape == fake_models.STATE else tensor


# A candidate with more hidden units, the commonest that there is.
LARGER_STATE = {side: tuple(map(larger, getattr(PLAIN, side))) for side in ("inputs", "outputs")}


@pytest.mark.parametrize(("state", "copied"), [(0.0, True), (0.5, False)])
def test_a_network_of_another_size_follows_what_carries_no_state(state: float, copied: bool) -> None:
    inputs = {
        "x": np.ones((2, 3, fake_models.FEATURES), np.float32),
        "lengths": np.array([3, 1]),
        "h0": np.full((2, 1, 4), state, np.float32),
        "c0": np.zeros((2, 1, 4), np.float32),
    }
    taken = as_taken_by(dataclasses.replace(PLAIN, **LARGER_STATE), inputs)  # type: ignore[arg-type]
    assert (taken is not None) is copied
    if taken:
        assert set(taken) == {"x", "lengths"}, "its own state is a new one"
        assert taken["lengths"].tolist() == [3, 1]
    assert as_taken_by(PLAIN, inputs) is inputs


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({}, ""),
        ({"tolerance": 0.01, "weights_sha256": "1" * 64}, ""),
        ({"inputs": PLAIN.inputs[::-1]}, ""),  # by name
        (LARGER_STATE, ""),
        (
            {"inputs": fake_models.spec(vocabulary=5).inputs},
            "it has the inputs x INT64 [-1, -1], and the model that it is to",
        ),
        ({"outputs": fake_models.spec(per_step=True).outputs}, "it has the outputs y FP32 [-1, -1, 2], and the model"),
    ],
)
def test_who_may_follow_a_model(change: dict[str, Any], why: str) -> None:
    found = fits(dataclasses.replace(PLAIN, **change), PLAIN)
    assert found.startswith(why)
    assert bool(found) == bool(why)


@pytest.fixture
def follower(tmp_path: Path) -> Iterator[tuple[Shadow, GatedBackend]]:
    """A shadow of everything, whose backend computes when the test lets it."""
    fake_models.write(tmp_path)
    gated = GatedBackend()

    class Gate:
        """The fake backend while it is loaded, and the gate before it afterwards."""

        def __init__(self, backend: Any) -> None:
            self._backend = backend

        def run(self, inputs: Tensors, outputs: Sequence[str]) -> Tensors:
            if inputs["x"].shape[1] == 7:
                gated.run(inputs, outputs)
            answer: Tensors = self._backend.run(inputs, outputs)
            return answer

        def close(self) -> None:
            gated.close()

    model = loader.load(dataclasses.replace(wanted(tmp_path, "max_batch_size: 1"), wrap=Gate)).model
    made = Shadow(model, 1.0, "1/fake", {"1": ShadowCounts(), "2": ShadowCounts()})
    yield made, gated
    assert made.close(10)


def offer(follower: Shadow) -> Comparison | None:
    x = np.ones((1, 7, fake_models.FEATURES), np.float32)
    state = np.zeros((1, 1, 4), np.float32)
    inputs = {"x": x, "lengths": np.array([7]), "h0": state, "c0": state}
    return follower.offer("1", Pending(Answer(0), inputs, 1, 7, ["y"], (b"",), Timeline(0)))


def test_what_a_shadow_has_no_room_for_is_dropped(follower: tuple[Shadow, GatedBackend]) -> None:
    made, backend = follower
    offered = [offer(made) for _ in range(shadow.MOST_WAITING + 3)]
    assert [comparison is None for comparison in offered] == [False] * shadow.MOST_WAITING + [True] * 3
    assert made.counts["1"].requests == {"compared": 0, "failed": 0, "dropped": 3}
    backend.permits.put(ComputeFailed("no"))
    for _ in range(shadow.MOST_WAITING - 1):
        backend.permits.put(None)
    for comparison in offered[: shadow.MOST_WAITING]:
        assert comparison
        comparison.answered({"y": np.full((1, 2), 21, np.float32)})
    made.model.close()  # answers what is queued
    made.close()
    assert made.counts["1"].requests == {"compared": shadow.MOST_WAITING - 1, "failed": 1, "dropped": 3}
    assert (made.counts["1"].largest_difference, made.counts["1"].classes) == (0.0, {True: 0, False: 0})
    assert not any(made.counts["2"].requests.values()), "nobody has asked version 2"


def test_nothing_is_kept_of_what_a_shadow_has_answered(follower: tuple[Shadow, GatedBackend]) -> None:
    made, backend = follower
    comparison = offer(made)
    assert comparison
    kept = weakref.ref(comparison)
    backend.permits.put(None)
    comparison.answered({"y": np.full((1, 2), 21, np.float32)})
    del comparison
    made.model.close()
    made.close()
    assert made.counts["1"].requests["compared"] == 1
    gc.collect()
    assert kept() is None


def test_a_copy_of_what_nobody_is_answered_is_not_computed(follower: tuple[Shadow, GatedBackend]) -> None:
    """Its request may have been cancelled, too late, or refused."""
    made, backend = follower
    running, cancelled = offer(made), offer(made)
    assert running
    assert cancelled
    backend.begun.get(timeout=10)
    cancelled.give_up()
    backend.permits.put(None)
    made.model.close()
    assert backend.begun.empty()
    assert made.counts["1"].requests["dropped"] == 1
    running.answered({"y": np.full((1, 2), 21, np.float32)})


def test_what_still_waits_is_dropped_when_a_shadow_ends(follower: tuple[Shadow, GatedBackend]) -> None:
    made, backend = follower
    for _ in range(10):
        offer(made)
    backend.begun.get(timeout=10)
    assert not made.close(0), "it cannot be interrupted"
    backend.permits.put(None)
    assert made.close(10)
    assert made.counts["1"].requests["dropped"] == 9
    assert backend.begun.empty(), "what nobody waits for was computed"
    assert offer(made) is None
    assert made.counts["1"].requests["dropped"] == 10
