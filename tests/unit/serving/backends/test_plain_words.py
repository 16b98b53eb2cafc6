"""Of a runtime's message the useful words are left, and what is met often has a remedy."""

from __future__ import annotations

from pathlib import Path

import onnx
import pytest
from onnx import TensorProto, helper

from serving.backends import onnx_runtime
from serving.backends.plain_words import plain, remedy
from serving.errors import RepositoryError

IR = (
    "[ONNXRuntimeError] : 1 : FAIL : Load model from /m/1/model.onnx failed:/src/core/graph/model.cc:256 "
    "onnxruntime::Model::Model(onnx::ModelProto&&, const PathString&, const ModelOptions&) Unsupported model IR version: 99\n"
)
KERNEL = (
    "[ONNXRuntimeError] : 6 : RUNTIME_EXCEPTION : Non-zero status code returned while running LSTM node. Status Message: "
    "/src/lstm.cc:12 onnxruntime::Status onnxruntime::f(std::function<void (int)>, const T*) const [with T = float] X (bad) is y"
)


@pytest.mark.parametrize(
    ("message", "left"),
    [
        (IR, "Unsupported model IR version: 99\n"),
        (KERNEL, "Non-zero status code returned while running LSTM node. Status Message: X (bad) is y"),
        ("Deserialize w failed.proto.cc:22 GetData External w (2)", "Deserialize w External w (2)"),
        ("a.cc:3 void a::b(int)\nsizes do not fit (2, 3)", "sizes do not fit (2, 3)"),
        ("sizes (2) and (3) do not fit", "sizes (2) and (3) do not fit"),
    ],
    ids=["a signature", "a template", "a bare name", "a line of its own", "nothing of the kind"],
)  # fmt: skip
def test_places_in_its_code_are_left_out(message: str, left: str) -> None:
    assert plain(message) == left


@pytest.mark.parametrize(
    ("message", "said"),
    [
        (IR, "opset_version=17"),
        ("Error No Op registered for Nonsense with domain_version of 17", "operators of ONNX alone"),
        ("External initializer: w offset: 0 are out of bounds", "copy it again"),
        ("Protobuf parsing failed.", "cut off"),
        ("something else", ""),
    ],
)
def test_what_is_met_often_has_a_remedy(message: str, said: str) -> None:
    assert said in remedy(message)
    assert bool(remedy(message)) == bool(said)


@pytest.mark.parametrize(
    ("ir", "opset", "operator", "told"),
    [
        (99, 17, "Relu", r"Unsupported model IR version: 99, .*; it was written for a newer ONNX: export it again"),
        (9, 99, "Relu", r"Runtime: Opset 99 .* till opset \d+; its opset is newer than this ONNX Runtime knows"),
        (9, 17, "Nonsense", r"No Op registered for Nonsense .*; export it again with operators of ONNX alone"),
    ],
)
def test_onnx_runtime_says_so_of_real_files(ir: int, opset: int, operator: str, told: str, tmp_path: Path) -> None:
    x, y = (helper.make_tensor_value_info(name, TensorProto.FLOAT, [None, 3]) for name in "xy")
    graph = helper.make_graph([helper.make_node(operator, ["x"], ["y"])], "g", [x], [y])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=ir)
    onnx.save(model, tmp_path / "model.onnx")
    with pytest.raises(RepositoryError, match=told):
        onnx_runtime.stated(tmp_path / "model.onnx")
