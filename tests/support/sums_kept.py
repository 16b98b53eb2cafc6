"""ONNX files of others that keep a running sum: the smallest thing with a state, in as many layouts as there are.

y[:, t] = state + x[:, 0] + ... + x[:, t],    next state = state + the sum over all steps
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from onnx import TensorProto, helper, numpy_helper, save

WIDTH = 3
TYPES = {"FP32": TensorProto.FLOAT, "FP64": TensorProto.DOUBLE, "INT64": TensorProto.INT64, "BOOL": TensorProto.BOOL}
TYPES |= {"INT32": TensorProto.INT32, "UINT64": TensorProto.UINT64}


def write(
    path: Path,
    pairs: Mapping[str, str],
    *,
    datatype: str = "FP32",
    axis: int = 0,
    start: str = "",
    corrid: str = "",
    mean: bool = False,
    steps: str | int = "n",
) -> Path:
    """A file with the state `pairs` (input: output), each of `datatype` and `[1, WIDTH]` a row; `y` is of the first.

    The rows of the state are on `axis`, 0 or 1. An input START of the datatype `start` takes the state away where it is 1, one
    CORRID of the datatype `corrid` is added to `y`. With `mean` each answer is less the mean over all steps, so that no piece
    is answered as the whole. `steps` is how many a call takes, free or a number.
    """
    kept = [
        numpy_helper.from_array(np.array(1, np.int64), "steps"),
        numpy_helper.from_array(np.array([1], np.int64), "over_steps"),
        numpy_helper.from_array(np.array([1 - axis], np.int64), "at"),
        numpy_helper.from_array(np.array(1, np.float32), "one"),
    ]
    nodes = [
        helper.make_node("CumSum", ["x", "steps"], ["sums"]),
        helper.make_node("ReduceSum", ["x", "over_steps"], ["total"], keepdims=0),
    ]
    inputs = [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["rows", steps, WIDTH])]
    outputs = [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["rows", steps, WIDTH])]
    for name, kind in (("START", start), ("CORRID", corrid)):
        if kind:
            inputs.append(helper.make_tensor_value_info(name, TYPES[kind], ["rows", 1]))
            nodes.append(helper.make_node("Cast", [name], [f"{name}_number"], to=TensorProto.FLOAT))
    shape: list[str | int] = [1, "rows", WIDTH] if axis else ["rows", 1, WIDTH]
    for place, (before, after) in enumerate(pairs.items()):
        inputs.append(helper.make_tensor_value_info(before, TYPES[datatype], shape))
        outputs.append(helper.make_tensor_value_info(after, TYPES[datatype], shape))
        nodes += [
            helper.make_node("Cast", [before], [f"{before}_number"], to=TensorProto.FLOAT),
            helper.make_node("Squeeze", [f"{before}_number", "at"], [f"{before}_kept"]),
        ]
        known = f"{before}_kept"
        if start:
            nodes += [
                helper.make_node("Sub", ["one", "START_number"], [f"{before}_goes_on"]),
                helper.make_node("Mul", [known, f"{before}_goes_on"], [f"{before}_from"]),
            ]
            known = f"{before}_from"
        if not place:
            nodes += [
                helper.make_node("Unsqueeze", [known, "over_steps"], ["at_each"]),
                helper.make_node("Add", ["sums", "at_each"], ["plain"]),
            ]
        nodes += [
            helper.make_node("Add", [known, "total"], [f"{before}_next"]),
            helper.make_node("Unsqueeze", [f"{before}_next", "at"], [f"{before}_out"]),
            helper.make_node("Cast", [f"{before}_out"], [after], to=TYPES[datatype]),
        ]
    last = "plain"
    if corrid:
        nodes += [
            helper.make_node("Unsqueeze", ["CORRID_number", "over_steps"], ["whose"]),
            helper.make_node("Add", [last, "whose"], ["with_id"]),
        ]
        last = "with_id"
    if mean:
        nodes += [
            helper.make_node("ReduceMean", ["x"], ["mean"], axes=[1], keepdims=1),
            helper.make_node("Sub", [last, "mean"], ["less"]),
        ]
        last = "less"
    nodes.append(helper.make_node("Identity", [last], ["y"]))
    graph = helper.make_graph(nodes, "sums", inputs, outputs, kept)
    path.parent.mkdir(parents=True, exist_ok=True)
    save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), str(path))
    return path
