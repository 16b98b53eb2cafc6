"""What torch writes of a module: scripted where that is possible, else traced, and said so."""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from torch import Tensor, nn

from export.errors import ExportError
from export.sources.torch_files import OPSET, WRITERS, Eager
from serving.signature.spec import ModelSpec, TensorSpec
from tests.unit.export import user_networks


def spec(*names: str) -> ModelSpec:
    inputs = tuple(TensorSpec(name, "FP32", (-1, -1, 8)) for name in names)
    return ModelSpec(
        inputs=inputs,
        outputs=(TensorSpec("y", "FP32", (-1, 3)),),
        lengths=None,
        state=(),
        streamable=False,
        tolerance=1e-5,
        weights_sha256="",
    )


class Nested(user_networks.Plain):
    def forward(self, x: Tensor) -> tuple[tuple[Tensor]]:  # type: ignore[override]
        return ((super().forward(x),),)


def written(form: str, module: nn.Module, name: str, path: Path) -> str:
    """The note of the writer."""
    _, write = WRITERS[form]
    return write(Eager(module.eval().requires_grad_(False), (name,)), spec(name), path)


def test_arguments_go_by_name_and_results_come_flat() -> None:
    eager = Eager(Nested().eval().requires_grad_(False), ("x",))
    (answer,) = eager.run({"unused": np.zeros(1), "x": np.ones((2, 5, 8), np.float32)})
    assert answer.shape == (2, 3)


@pytest.mark.parametrize(
    ("module", "name", "note"),
    [
        (user_networks.Plain, "x", ""),
        (
            user_networks.Plain,
            "audio",
            "it could not be scripted and was traced: forward takes x and the inputs are audio",
        ),
        (Nested, "x", "it could not be scripted and was traced: forward returns tuples within tuples"),
    ],
    ids=["scripted", "another name", "nested"],
)
def test_torchscript_is_scripted_where_it_can_be(module: type[nn.Module], name: str, note: str, tmp_path: Path) -> None:
    module_ = module()
    assert written("torchscript", module_, name, tmp_path / "m.pt") == note
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that torch.jit is deprecated
        loaded = torch.jit.load(str(tmp_path / "m.pt"))  # type: ignore[no-untyped-call]
    x = torch.ones(2, 5, 8)
    torch.testing.assert_close(loaded(x), user_networks.Plain.forward(module_, x))
    assert [argument.name for argument in loaded.forward.schema.arguments[1:]] == [name]


def test_onnx_has_the_names_of_the_signature_and_free_axes(tmp_path: Path) -> None:
    assert written("onnx", user_networks.Plain(), "audio", tmp_path / "m.onnx") == ""
    graph = onnx.load(tmp_path / "m.onnx")
    (entry,) = graph.graph.input
    assert (entry.name, graph.graph.output[0].name, graph.opset_import[0].version) == ("audio", "y", OPSET)
    assert [axis.dim_value for axis in entry.type.tensor_type.shape.dim] == [0, 0, 8]


def test_what_torch_cannot_write_says_what_else_it_could(tmp_path: Path) -> None:
    with pytest.raises(
        ExportError, match=r"torch cannot write the module as onnx: .*; take --format torchscript, or replace"
    ):
        written("onnx", user_networks.NormedByTheBatch(), "x", tmp_path / "m.onnx")
