"""What came of a load, as the index tells it."""

from __future__ import annotations

from collections.abc import Mapping
from types import SimpleNamespace
from typing import cast

import pytest

from serving.batching.model import Model
from serving.loading.order import Order
from serving.loading.request import Loaded, LoadRequest

UNVERIFIED = "not verified: it has no golden samples"
WRONG = {"torchscript": "it is damaged", "saved_model": "y differs by 1"}
TOLD = "torchscript cannot serve it: it is damaged; saved_model cannot serve it: y differs by 1"


def loaded(*, verified: bool = True, fell_back: str = "", damaged: Mapping[str, str] | None = None) -> Loaded:
    return Loaded(
        model=cast(Model, SimpleNamespace(verified=verified)),
        request=cast(LoadRequest, None),
        order=Order(first=()),
        fell_back=fell_back,
        damaged=damaged or {},
    )


@pytest.mark.parametrize(
    ("one", "remark"),
    [
        (loaded(), ""),
        (loaded(verified=False), UNVERIFIED),
        (loaded(damaged=WRONG), TOLD),
        (loaded(damaged=WRONG, verified=False), TOLD),
        (loaded(fell_back="onnx_runtime: no GPU", damaged=WRONG), "onnx_runtime: no GPU"),
    ],
    ids=["nothing", "no samples", "other files are wrong", "wrong files first", "a fallback goes before all"],
)
def test_what_is_remarked_on_a_version_that_serves(one: Loaded, remark: str) -> None:
    assert one.remark == remark


def test_what_stands_in_says_so_until_the_first_choice_serves_again() -> None:
    one = loaded(damaged=WRONG)
    instead = one.standing_in("fell back from fake (device_lost)")
    assert (instead.remark, one.remark) == ("fell back from fake (device_lost)", TOLD)
    assert instead.standing_in("") == one
