"""Rows that touch each other, in every way that has been thought of, are found out; rows that do not are believed."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from serving.backends.base import Contents
from serving.verification import company, values
from serving.verification.hints import Hints
from serving.verification.inspection import Findings, inspect, unproved
from serving.verification.trials import Trials
from serving.verification.values import Kind
from tests.support.row_mixing import APART, MIXING, Network, X, embedded


def looked_at(network: Network) -> Findings:
    return inspect(
        unproved(network.inputs, {"y": ("FP32", (-1, -1, 3))}),
        network.run,
        Hints(),
        Contents(constants=network.constants),
    )


@pytest.mark.parametrize("network", MIXING, ids=lambda network: network.name)
def test_rows_that_touch_each_other_are_never_batched(network: Network) -> None:
    found = looked_at(network)
    assert not found.spec.batched


@pytest.mark.parametrize("network", APART, ids=lambda network: network.name)
def test_rows_that_do_not_are_batched(network: Network) -> None:
    assert looked_at(network).spec.batched


def test_there_are_enough_ways() -> None:
    assert len({network.name for network in MIXING}) >= 50


ROW = {"x": np.array([[[0.5, -1.1, 2.3, 0.25]]], np.float32)}


def run_of(answer: Callable[[Any], Any]) -> company.Run:
    return lambda inputs: {"y": np.asarray(answer(inputs["x"]), np.float32)}


@pytest.mark.parametrize(
    ("answered", "told"),
    [
        (0.0, ""),
        (0.5e-5, ""),
        (2e-5, "an answer y was 2e-05 away from that to the same row alone, and 1e-05 is allowed"),
        (float("nan"), "an answer y was inf away from that to the same row alone, and 1e-05 is allowed"),
    ],
)
def test_a_row_that_was_answered_otherwise_in_company(answered: float, told: str) -> None:
    found = company.answered_otherwise(
        run_of(lambda x: np.zeros((1, 2))), ROW, {"y": np.full((1, 2), answered, np.float32)}, tolerance=1e-5
    )
    assert found == told


def test_what_rounding_explains_is_no_difference() -> None:
    """A network that multiplies what is left of two large numbers moves as far when its inputs move by one bit."""
    run = run_of(lambda x: (x.sum(axis=(1, 2)) - 1.95) * 1e3)
    moved = run({"x": np.nextafter(ROW["x"], np.float32(9))})
    assert np.abs(moved["y"]).max() > 1e-5
    assert company.answered_otherwise(run, ROW, moved, tolerance=1e-5) == ""


def test_a_difference_is_measured_against_the_largest_value_of_the_answer() -> None:
    run = run_of(lambda x: np.array([[1e6, 0.5]]))
    near = {"y": np.array([[1e6, 0.6]], np.float32)}
    assert company.answered_otherwise(run, ROW, near, tolerance=1e-5) == ""


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        (Kind(), "usual values"),
        (Kind(place=values.TAIL), "usual values, ending in 0"),
        (Kind(values.LARGE, values.HOLE, float("inf")), "large values, inf within"),
        (Kind(values.SAMPLED), "of the samples"),
        (None, "each input of another kind"),
    ],
)
def test_kinds_are_told(kind: Kind | None, words: str) -> None:
    assert company.told(kind) == words


def rounded_otherwise(x: Any) -> Any:
    """What a runtime does that sums in another order for several rows, of a network that is sensitive to that."""
    x = np.clip(x, -3, 3)
    x = np.nextafter(x, np.float32(9)) if len(x) > 1 else x
    return np.sin(1e3 * x.astype(np.float64).sum(axis=1))[:, :1]


@pytest.mark.parametrize(("tolerance", "batched"), [(1e-5, False), (1e-2, True)])
def test_a_network_that_rounding_moves_is_batched_within_its_tolerance(tolerance: float, batched: bool) -> None:
    stated = dataclasses.replace(unproved({"x": ("FP32", (-1, -1, 4))}, {"y": ("FP32", (-1, 1))}), tolerance=tolerance)
    found = inspect(stated, lambda sent, wanted: {"y": rounded_otherwise(sent["x"]).astype(np.float32)}, Hints())
    assert found.spec.batched is batched
    if not batched:
        assert "several rows are rounded otherwise than one, which moves the answer y" in found.why_alone
        assert "(--tolerance)" in found.why_alone


def test_whole_numbers_are_rounded_otherwise_too() -> None:
    """Their last bit cannot be moved: the row is put beside copies of itself."""

    def run(sent: Any, wanted: Any) -> Any:
        x = embedded(sent["ids"]).astype(np.float32)
        return {"y": rounded_otherwise(x / 100).astype(np.float32)}

    stated = dataclasses.replace(unproved({"ids": ("INT64", (-1, -1))}, {"y": ("FP32", (-1, 1))}), tolerance=1e-2)
    assert inspect(stated, run, Hints()).spec.batched


@pytest.mark.parametrize("network", [APART[0], APART[10]], ids=lambda network: network.name)
def test_a_proof_takes_a_few_hundred_runs(network: Network) -> None:
    """At least 60 companies at each of two sizes, and no more than somebody would wait for."""
    runs = 0

    def counted(sent: Any, wanted: Any) -> Any:
        nonlocal runs
        runs += 1
        return network.run(sent, wanted)

    spec = unproved(network.inputs, {"y": ("FP32", (-1, -1, 3))})
    assert inspect(spec, counted, Hints()).spec.batched
    assert 200 <= runs <= 400


def test_there_are_more_than_sixty_companies() -> None:
    spec = unproved(X, {"y": ("FP32", (-1, -1, 3))})
    trials = Trials(spec, {"x": (-1, -1, 4)}, APART[0].run, Hints())
    found = company.apart(trials, {"x": 0}, {"y": 0}, 24)
    assert found.why == ""
    assert found.companies > 60
