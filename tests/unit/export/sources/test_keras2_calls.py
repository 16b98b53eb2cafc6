"""What layers are called on, out of the words of Keras 2 into those of Keras 3."""

from __future__ import annotations

from typing import Any

import pytest

from export.errors import ExportError
from export.sources.keras2_calls import call, ids_are_whole, keeps_its_input, one_or_all

FIRST = {"x": 0, "h": 0, "inner": 1}


def tensor(name: str, number: int = 0, place: int = 0) -> dict[str, Any]:
    config = {"shape": [], "dtype": "float32", "keras_history": [name, number, place]}
    return {"class_name": "__keras_tensor__", "config": config}


@pytest.mark.parametrize(
    ("kind", "node", "args", "kwargs"),
    [
        ("Dense", [["x", 0, 0, {}]], [tensor("x")], {}),
        ("Dense", [["inner", 2, 0, {"training": True}]], [tensor("inner", 1)], {}),
        ("Add", [["x", 0, 0, {}], ["h", 0, 1, {}]], [[tensor("x"), tensor("h", 0, 1)]], {}),
        ("LSTM", [["x", 0, 0, {}], ["h", 0, 1, {}]], [tensor("x")], {"initial_state": [tensor("h", 0, 1)]}),
        ("TFOpLambda", ["x", 0, 0, {"y": ["h", 0, 0], "name": None}], [tensor("x")], {"y": tensor("h")}),
        ("TFOpLambda", [["x", 0, 0, {"axis": 1}], ["h", 0, 0, {}]], [[tensor("x"), tensor("h")]], {"axis": 1}),
        ("TFOpLambda", ["_CONSTANT_VALUE", -1, 2.0, {"y": ["x", 0, 0]}], [], {"first": 2.0, "y": tensor("x")}),
    ],
)
def test_calls(kind: str, node: list[Any], args: list[Any], kwargs: dict[str, Any]) -> None:
    assert call(FIRST, {"class_name": kind, "name": "l", "config": {}}, node) == {"args": args, "kwargs": kwargs}


def test_constants_of_a_recurrent_layer_are_named() -> None:
    layer = {"class_name": "RNN", "name": "theirs", "config": {"num_constants": 1}}
    with pytest.raises(ExportError, match="the layer theirs takes constants beside its state"):
        call(FIRST, layer, [["x", 0, 0, {}], ["h", 0, 0, {}]])


def test_one_tensor_is_in_no_list() -> None:
    assert one_or_all(FIRST, [["inner", 1, 0]]) == ["inner", 0, 0]
    assert one_or_all(FIRST, [["x", 0, 0], ["h", 0, 1]]) == [["x", 0, 0], ["h", 0, 1]]


def test_a_model_within_keeps_its_input() -> None:
    layers = [{"class_name": "InputLayer"}, {"class_name": "Dense"}]
    assert keeps_its_input({"class_name": "Sequential", "config": {"layers": layers}})
    assert not keeps_its_input({"class_name": "Sequential", "config": layers[1:]})
    assert not keeps_its_input({"class_name": "Dense", "config": {}})


@pytest.mark.parametrize(("reader", "dtype"), [("Embedding", "int32"), ("Dense", "float32")])
def test_what_is_only_looked_up_is_whole(reader: str, dtype: str) -> None:
    entry = {"class_name": "InputLayer", "config": {"name": "x", "dtype": "float32"}}
    one_by_one = ids_are_whole([entry, {"class_name": reader, "config": {}}])
    called = [
        {**entry, "inbound_nodes": []},
        {"class_name": reader, "config": {}, "inbound_nodes": [[["x", 0, 0, {}]]]},
    ]
    assert [layers[0]["config"]["dtype"] for layers in (one_by_one, ids_are_whole(called))] == [dtype, dtype]
