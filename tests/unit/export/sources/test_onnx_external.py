"""ONNX files with their weights in other files beside them: found, brought along, or refused by name."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from export.__main__ import main
from export.errors import ExportError
from export.sources.onnx_external import beside
from serving.backends import onnx_runtime
from serving.backends.base import Options
from serving.signature.spec import ModelSpec
from serving.verification import golden

WEIGHTS = np.random.default_rng(0).normal(size=(3, 3)).astype(np.float32)


def network(data: str, inside: bool = False) -> onnx.ModelProto:
    """y = x w, its weights in the file `data`; `inside` a branch rather than at the top."""
    x, y = (helper.make_tensor_value_info(name, TensorProto.FLOAT, ["rows", 3]) for name in "xy")
    weights = numpy_helper.from_array(WEIGHTS, "w")
    nodes = [helper.make_node("MatMul", ["x", "w"], ["y"])]
    if inside:
        once = helper.make_graph([helper.make_node("MatMul", ["x", "w"], ["z"])], "once", [], [out("z")], [weights])
        true = numpy_helper.from_array(np.array(True), "true")
        nodes = [helper.make_node("If", ["true"], ["y"], then_branch=once, else_branch=once)]
        weights = true
    model = helper.make_model(
        helper.make_graph(nodes, "one", [x], [y], [weights]), opset_imports=[helper.make_opsetid("", 17)], ir_version=8
    )
    onnx.external_data_helper.convert_model_to_external_data(model, location=data, size_threshold=2)
    return model


def out(name: str) -> Any:
    return helper.make_tensor_value_info(name, TensorProto.FLOAT, ["rows", 3])


def saved(folder: Path, data: str) -> Path:
    folder.mkdir(parents=True)
    onnx.save_model(network(data), folder / "net.onnx")
    return folder / "net.onnx"


def imported(file: Path, repository: Path) -> int:
    return main(["import", str(file), "--repository", str(repository), "--name", "m"])


def test_files_beside_it_come_along_and_are_part_of_the_digest(tmp_path: Path) -> None:
    file = saved(tmp_path / "theirs", "net.onnx.data")
    assert beside(file) == (Path("net.onnx.data"),)
    assert imported(file, tmp_path / "r") == 0
    version = tmp_path / "r" / "m" / "1"
    assert {path.name for path in version.iterdir()} == {"model.onnx", "net.onnx.data", "spec.json", "golden.npz"}
    spec = ModelSpec.read(version / "spec.json")
    backend = onnx_runtime.load(version / "model.onnx", spec, "cpu", Options())
    (sample, *_) = golden.read_samples(version / "golden.npz")
    np.testing.assert_allclose(backend.run(sample.inputs, ["y"])["y"], sample.inputs["x"] @ WEIGHTS, atol=1e-6)
    backend.close()
    data = bytearray((tmp_path / "theirs" / "net.onnx.data").read_bytes())
    data[0] ^= 1
    (tmp_path / "theirs" / "net.onnx.data").write_bytes(data)
    assert imported(file, tmp_path / "r") == 0
    assert ModelSpec.read(tmp_path / "r" / "m" / "2" / "spec.json").weights_sha256 != spec.weights_sha256


def test_tensors_within_branches_count(tmp_path: Path) -> None:
    model = network("w.bin", inside=True)
    for each in model.graph.node[0].attribute:
        onnx.external_data_helper.set_external_data(each.g.initializer[0], "w.bin")
    (tmp_path / "net.onnx").write_bytes(model.SerializeToString())
    (tmp_path / "w.bin").write_bytes(WEIGHTS.tobytes())
    assert beside(tmp_path / "net.onnx") == (Path("w.bin"),)


def test_a_file_that_is_missing_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = saved(tmp_path / "theirs", "net.onnx.data")
    (tmp_path / "theirs" / "net.onnx.data").unlink()
    assert imported(file, tmp_path / "r") == 2
    assert f"{tmp_path / 'theirs' / 'net.onnx.data'} is missing" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("location", "said"),
    [
        ("../w.bin", "outside its own folder"),
        ("link/w.bin", "outside its own folder"),
        ("golden.npz", "the name of another file of a version"),
    ],
)
def test_a_place_that_no_version_may_take_from(location: str, said: str, tmp_path: Path) -> None:
    file = saved(tmp_path / "theirs", "w.bin")
    (tmp_path / "theirs" / "link").symlink_to(tmp_path)
    shutil.copy(tmp_path / "theirs" / "w.bin", tmp_path / "w.bin")
    shutil.copy(tmp_path / "theirs" / "w.bin", tmp_path / "theirs" / "golden.npz")
    model = onnx.load(file, load_external_data=False)
    model.graph.initializer[0].external_data[0].value = location
    file.write_bytes(model.SerializeToString())
    with pytest.raises(ExportError, match=said):
        beside(file)


def test_a_file_of_its_own_or_no_onnx_has_none(tmp_path: Path) -> None:
    model = helper.make_model(helper.make_graph([], "none", [], []))
    (tmp_path / "net.onnx").write_bytes(model.SerializeToString())
    assert beside(tmp_path / "net.onnx") == ()
    (tmp_path / "net.onnx").write_bytes(b"\xff" * 9)
    assert beside(tmp_path / "net.onnx") == ()
