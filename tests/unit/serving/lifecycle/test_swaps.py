"""What is counted as a swap, and what is only told."""

from __future__ import annotations

import logging
from types import SimpleNamespace
from typing import cast

import pytest

from serving.backends.base import Candidate
from serving.batching.model import Model
from serving.lifecycle.swaps import Swaps


def model(backend: str, device: str = "cpu") -> Model:
    """As much of a model as a swap tells of."""
    return cast(Model, SimpleNamespace(name="m", version="1", candidate=Candidate(backend, device, 1)))


def test_swaps_are_counted_by_what_answered_before_and_after_and_why() -> None:
    swaps = Swaps()
    swaps.happened(model("torchscript"), model("torchscript", "cuda:0"), "requested")
    before = swaps.snapshot()
    swaps.happened(model("torchscript", "cuda:0"), model("onnx_runtime"), "device_lost")
    swaps.happened(model("torchscript", "cuda:0"), model("onnx_runtime"), "device_lost")
    assert before == {("m", "1", "torchscript", "torchscript@cuda:0", "requested"): 1}
    assert swaps.snapshot() == before | {("m", "1", "torchscript@cuda:0", "onnx_runtime", "device_lost"): 2}


def test_what_is_loaded_anew_in_the_same_place_is_told_and_not_counted(caplog: pytest.LogCaptureFixture) -> None:
    swaps = Swaps()
    with caplog.at_level(logging.INFO):
        swaps.happened(model("fake"), model("fake"), "changed")
    assert swaps.snapshot() == {}
    (record,) = caplog.records
    assert record.getMessage() == "loaded anew in the same place"
    same = {"from": "fake", "to": "fake", "from_threads": 1, "to_threads": 1}
    assert record.fields == {"model": "m", "version": "1", "reason": "changed"} | same  # type: ignore[attr-defined]
