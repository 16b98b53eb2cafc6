"""Every operator that is said to outlive empty tensors, run on some: a process of its own, since it may end with one of them.

Prints the name of an operator before it is run, and a line `done` at the end.
"""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np

Case = tuple[dict[str, Any], list[Any]]  # attributes; an input by its shape (FP32), or with a datatype, or a constant

Z = (0, 3)
UNARY = """
    Abs Ceil Cos Elu Erf Exp Floor Gelu HardSigmoid Identity IsInf IsNaN LeakyRelu Log LogSoftmax Neg NonZero
    Reciprocal ReduceL1 ReduceL2 ReduceMax ReduceMean ReduceMin ReduceProd ReduceSum Relu Round Selu Shape Sigmoid
    Sign Sin Softmax Softplus Softsign Sqrt Tanh Transpose Clip Flatten ArgMax ArgMin
""".split()  # noqa: SIM905 - a name a line is two screens
BINARY = ["Add", "Div", "Equal", "Greater", "GreaterOrEqual", "Less", "LessOrEqual", "Max", "Min", "Mul", "Pow", "Sub"]
FLAGS = ["And", "Or"]


def constant(*values: Any, dtype: type = np.int64) -> Any:
    """A one-dimensional constant."""
    return np.array(values, dtype)


CASES: dict[str, list[Case]] = {
    **{name: [({}, [shape]) for shape in (Z, (2, 0), (0, 0))] for name in UNARY},
    **{name: [({}, [Z, (1, 3)]), ({}, [(2, 0), (2, 1)])] for name in BINARY},
    **{name: [({}, [("?", Z), ("?", Z)])] for name in FLAGS},
    "AveragePool": [({"kernel_shape": [2], "pads": [1, 1]}, [shape]) for shape in ((0, 3, 5), (1, 3, 0), (1, 0, 5))],
    "BatchNormalization": [({}, [shape, (3,), (3,), (3,), (3,)]) for shape in ((0, 3, 4), (1, 3, 0))],
    "Cast": [({"to": 7}, [Z]), ({"to": 8}, [Z]), ({"to": 1}, [("O", Z)])],
    "Concat": [({"axis": 0}, [Z, (2, 3)]), ({"axis": 1}, [(2, 0), (2, 0)])],
    "Constant": [({"value_ints": [1]}, [])],
    "Conv": [({"pads": [1, 1]}, [shape, (4, 3, 3)]) for shape in ((0, 3, 5), (1, 3, 0))],
    "ConvTranspose": [({}, [shape, (3, 4, 3)]) for shape in ((0, 3, 5), (1, 3, 0))],
    "CumSum": [({}, [shape, np.array(axis)]) for shape in (Z, (2, 0)) for axis in (0, 1)],
    "DynamicQuantizeLinear": [({"outputs": 3}, [Z])],
    "Einsum": [({"equation": "ij,jk->ik"}, [Z, (3, 2)]), ({"equation": "ij,jk->ik"}, [(2, 0), (0, 2)])],
    "Expand": [({}, [(0, 1), constant(1, 3)])],
    "Gather": [({}, [(4, 3), ("i8", (0,))]), ({}, [Z, ("i8", (2,))]), ({"axis": 1}, [Z, ("i8", (2,))])],
    "GatherND": [({}, [Z, ("i8", (2, 1))]), ({}, [(4, 3), ("i8", (0, 1))])],
    "Gemm": [({}, [Z, (3, 4), (4,)]), ({}, [(2, 0), (0, 4), (4,)])],
    "GlobalAveragePool": [({}, [(0, 3, 4)]), ({}, [(1, 3, 0)])],
    "GlobalMaxPool": [({}, [(0, 3, 4)]), ({}, [(1, 3, 0)])],
    "InstanceNormalization": [({}, [(0, 3, 4), (3,), (3,)]), ({}, [(1, 3, 0), (3,), (3,)])],
    "LayerNormalization": [({}, [Z, (3,)]), ({}, [(2, 0), (0,)])],
    "MatMul": [({}, [Z, (3, 4)]), ({}, [(2, 0), (0, 4)]), ({}, [(0, 2, 3), (3, 4)])],
    "MatMulInteger": [({}, [("u1", Z), ("u1", (3, 2))])],
    "MaxPool": [({"kernel_shape": [2], "pads": [1, 1]}, [shape]) for shape in ((0, 3, 5), (1, 3, 0))],
    "Mod": [({"fmod": 1}, [Z, (1, 3)]), ({}, [("i8", Z), ("i8", (1, 3))])],
    "Not": [({}, [("?", Z)])],
    "Pad": [({}, [Z, constant(1, 1, 1, 1)]), ({"mode": "reflect"}, [Z, constant(1, 1, 1, 1)])],
    "Reshape": [({}, [Z, constant(*shape)]) for shape in ((-1, 3), (0, 3), (3, 0))],
    "ReverseSequence": [({}, [(0, 2), ("i8", (2,))]), ({}, [(3, 0), ("i8", (0,))])],
    "Slice": [({}, [Z, constant(0), constant(2)]), ({}, [Z, constant(1), constant(2), constant(1)])],
    "Split": [({"outputs": 2, "axis": axis}, [(0, 4)]) for axis in (0, 1)],
    "Squeeze": [({}, [(1, 0), constant(0)])],
    "StringNormalizer": [({"locale": "C", "case_change_action": "UPPER"}, [("O", (0,))])],
    "Tile": [({}, [(0, 1), constant(2, 3)])],
    "TopK": [({"outputs": 2}, [shape, constant(1)]) for shape in (Z, (2, 0))],
    "Unsqueeze": [({}, [(0,), constant(0)])],
    "Where": [({}, [("?", Z), Z, Z])],
    "ai.onnx.ml.LabelEncoder": [({"keys_strings": ["a"], "values_int64s": [1]}, [("O", Z)])],
}


def run(name: str, attributes: dict[str, Any], inputs: list[Any]) -> None:
    """Runs one node; what it raises is an answer, too."""
    import onnxruntime
    from onnx import helper, numpy_helper

    fed, declared, kept, names = {}, [], [], []
    for place, given in enumerate(inputs):
        names.append(f"i{place}")
        if isinstance(given, np.ndarray):
            kept.append(numpy_helper.from_array(given, names[-1]))
            continue
        dtype, shape = given if isinstance(given[0] if given else 0, str) else ("f4", given)
        fed[names[-1]] = np.zeros(shape, dtype) if dtype != "O" else np.full(shape, "1", object)
        kind = helper.np_dtype_to_tensor_dtype(np.dtype(dtype))
        declared.append(helper.make_tensor_value_info(names[-1], kind, [None] * len(shape)))
    said = dict(attributes)
    out = [f"o{place}" for place in range(said.pop("outputs", 1))]
    domain, _, operator = name.rpartition(".")
    node = helper.make_node(operator, names, out, domain=domain, **said)
    graph = helper.make_graph([node], "g", declared, [helper.make_empty_tensor_value_info(o) for o in out], kept)
    opsets = [helper.make_opsetid("", 20 if operator == "Gelu" else 17), helper.make_opsetid("ai.onnx.ml", 3)]
    model = helper.make_model(graph, opset_imports=opsets, ir_version=9)
    settings = onnxruntime.SessionOptions()
    settings.log_severity_level = 4
    session = onnxruntime.InferenceSession(model.SerializeToString(), settings)
    try:
        session.run(None, fed)
    except Exception as error:  # noqa: BLE001 - whatever the runtime raises; the process lives
        print(f"{name} refuses: {str(error).splitlines()[0][:80]}", flush=True)


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    for operator, cases in CASES.items():
        print(operator, flush=True)
        for case in cases:
            run(operator, *case)
    print("done", flush=True)
