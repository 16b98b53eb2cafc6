"""The table of a signature says what a client must send, may send, and gets."""

from __future__ import annotations

from export import canonical
from export.sources.told import signature
from models.config import LSTMConfig
from serving.signature.spec import ModelSpec, StatePair
from serving.signature.tensors import TensorSpec


def spec(inputs: tuple[TensorSpec, ...], outputs: tuple[TensorSpec, ...], **more: object) -> ModelSpec:
    fields = {"lengths": None, "state": (), "streamable": False, "tolerance": 1e-5, "weights_sha256": ""}
    return ModelSpec(inputs=inputs, outputs=outputs, **(fields | more))  # type: ignore[arg-type]


def test_the_canonical_signature() -> None:
    config = LSTMConfig(features=8, layers=2, hidden=16, head="values", outputs=3)
    told = spec(canonical.inputs(config), canonical.outputs(config), lengths=canonical.LENGTHS, state=canonical.STATE)
    assert signature(told).splitlines() == [
        "  input  x               FP32 [-1, -1, 8]",
        "  input  lengths         INT64 [-1], may be left out",
        "  input  h0              FP32 [-1, 2, 16], may be left out, state, next value in hn",
        "  input  c0              FP32 [-1, 2, 16], may be left out, state, next value in cn",
        "  output y               FP32 [-1, 3]",
        "  output hn              FP32 [-1, 2, 16], where it is asked for",
        "  output cn              FP32 [-1, 2, 16], where it is asked for",
    ]


def test_a_signature_of_its_own() -> None:
    inputs = (
        TensorSpec("x", "FP32", (-1, -1, 8)),
        TensorSpec("h", "FP32", (-1, 1, 16), rows_axis=1),
        TensorSpec("sr", "INT64", (1,), None),
    )
    outputs = (TensorSpec("y", "FP32", (-1, 3)), TensorSpec("hn", "FP32", (-1, 1, 16), rows_axis=1))
    told = spec(inputs, outputs, state=(StatePair("h", "hn"),), state_advertised=True)
    assert signature(told).splitlines() == [
        "  input  x               FP32 [-1, -1, 8]",
        "  input  h               FP32 [-1, 1, 16], rows on axis 1 in the file, state, next value in hn",
        "  input  sr              INT64 [1, 1], one for all rows",
        "  output y               FP32 [-1, 3]",
        "  output hn              FP32 [-1, 1, 16], rows on axis 1 in the file",
    ]


def test_a_long_name_moves_the_column() -> None:
    name = "save_infer_model/scale_0.tmp_1"
    told = spec((TensorSpec("x", "FP32", (-1, 8)),), (TensorSpec(name, "FP32", (-1, 2)),))
    assert signature(told).splitlines() == [f"  input  {'x':<30} FP32 [-1, 8]", f"  output {name} FP32 [-1, 2]"]
