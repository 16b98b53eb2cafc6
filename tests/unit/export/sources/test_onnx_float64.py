"""ONNX files computed in float64."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from export.__main__ import main
from export.sources.onnx_float64 import opened

GENERATOR = np.random.default_rng(0)
WEIGHTS = {
    "w": GENERATOR.normal(size=(1, 16, 3)).astype(np.float32),
    "r": GENERATOR.normal(size=(1, 16, 4)).astype(np.float32),
    "scale": np.array(1e4, np.float32),
}


def lstm(path: Path, direction: str = "forward") -> Path:
    """y is the last hidden state `[rows, 4]`, ten thousand times as large."""
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["steps", "rows", 3])
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, ["rows", 4])
    nodes = [
        helper.make_node("LSTM", ["x", "w", "r"], ["", "h"], hidden_size=4, direction=direction),
        helper.make_node("Squeeze", ["h", "axes"], ["last"]),
        helper.make_node("Cast", ["last"], ["float"], to=TensorProto.FLOAT),
        helper.make_node("Mul", ["float", "scale"], ["y"]),
    ]
    kept = [numpy_helper.from_array(array, name) for name, array in WEIGHTS.items()]
    kept.append(numpy_helper.from_array(np.array([0]), "axes"))
    model = helper.make_model(
        helper.make_graph(nodes, "lstm", [x], [y], kept), opset_imports=[helper.make_opsetid("", 17)], ir_version=8
    )
    onnx.save(model, path)
    return path


def test_a_file_is_computed_in_float64(tmp_path: Path) -> None:
    x = GENERATOR.normal(size=(5, 2, 3)).astype(np.float32)
    answer = opened(lstm(tmp_path / "m.onnx"))({"x": x})
    assert answer is not None
    assert (answer["y"].dtype, answer["y"].shape) == (np.float64, (2, 4))


def test_what_cannot_be_computed_so_is_not_told(tmp_path: Path) -> None:
    x = {"x": np.ones((1, 1, 3), np.float32)}
    (tmp_path / "m.onnx").write_bytes(b"no onnx")
    assert opened(tmp_path / "m.onnx")(x) is None
    assert opened(lstm(tmp_path / "m.onnx", direction="bidirectional"))(x) is None


def test_answers_that_rounding_has_moved_are_told_from_others(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = lstm(tmp_path / "m.onnx")
    x = GENERATOR.normal(size=(24, 2, 3)).astype(np.float32)
    wide = opened(path)({"x": x})
    assert wide is not None
    command = ["import", str(path), "--repository", str(tmp_path / "r"), "--name", "m"]
    samples = ["--samples", str(tmp_path / "own.npz")]
    np.savez(tmp_path / "own.npz", x=x, y=wide["y"])
    assert main([*command, *samples, "--tolerance", "1e-9"]) == 2
    said = capsys.readouterr().err
    assert "so that is rounding; allow it with --tolerance" in said
    np.savez(tmp_path / "own.npz", x=x, y=wide["y"] + 500)
    assert main([*command, *samples]) == 2
    assert "so that is no rounding; or leave the answers out" in capsys.readouterr().err
