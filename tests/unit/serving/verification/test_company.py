"""Rows that touch each other, in every way that has been thought of, are found out; rows that do not are believed."""

from __future__ import annotations

import pytest

from serving.backends.base import Contents
from serving.verification.hints import Hints
from serving.verification.inspection import Findings, inspect, unproved
from tests.support.row_mixing import APART, MIXING, Network


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
