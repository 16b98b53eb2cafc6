"""A file is told by its first bytes, whatever it is called, and whoever cannot read it says what it is."""

from __future__ import annotations

import io
import pickle
import zipfile
from pathlib import Path

import pytest
import torch
from onnx import TensorProto, helper

from serving.backends import onnx_runtime, recognised, torchscript
from serving.backends.base import Options
from serving.backends.recognised import unlike
from serving.errors import RepositoryError
from serving.verification.inspection import unproved
from tests.unit.export import user_networks

SPEC = unproved({"x": ("FP32", (-1, 3))}, {"y": ("FP32", (-1, 3))})


def archive(*names: str) -> bytes:
    held = io.BytesIO()
    with zipfile.ZipFile(held, "w") as made:
        for name in names:
            made.writestr(name, b"")
    return held.getvalue()


def state_dict() -> bytes:
    held = io.BytesIO()
    torch.save(user_networks.Plain().state_dict(), held)
    return held.getvalue()


def one_node() -> bytes:
    x, y = (helper.make_tensor_value_info(name, TensorProto.FLOAT, [None, 3]) for name in "xy")
    graph = helper.make_graph([helper.make_node("Relu", ["x"], ["y"])], "g", [x], [y])
    made: bytes = helper.make_model(
        graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9
    ).SerializeToString()
    return made


BOTH = [
    (b"", "is empty, so no"),
    (b"\0" * 100, "nothing but zeros"),
    (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "git lfs pull"),
    (b"\n<!DOCTYPE html>", "as a web page does: fetch it again"),
    (b'{"message": "Not Found"}', "but JSON"),
    (b"\x89HDF\r\n\x1a\n" + b"\0" * 9, "an HDF5 file, as Keras 2 saves: a model that Keras has saved goes by lstm-export keras"),
    (b"\x1f\x8b\x08\0", "a gzip archive: unpack it"),
    (archive("config.json", "model.weights.h5"), "but a file that Keras has saved: "),
    (b"PK\x03\x04" + b"\0" * 90, "but a zip archive that is cut off, as TorchScript is one: copy it again"),
    (archive("a.npy"), "but an archive without constants.pkl"),
    (state_dict(), "but what torch.save wrote, weights or a pickled module: weights need their module beside them"),
    (pickle.dumps({"a": 1}, protocol=2), "but a pickle, as older torch.save and joblib write: weights"),
    ((5).to_bytes(8, "little") + b'{"a":1}', "but a file of safetensors: weights"),
]  # fmt: skip


@pytest.mark.parametrize(("held", "said"), BOTH)
def test_what_neither_reads_is_told_by_both(held: bytes, said: str, tmp_path: Path) -> None:
    for module, wanted in ((onnx_runtime, "ONNX file"), (torchscript, "TorchScript")):
        path = tmp_path / module.FILE_NAME
        path.write_bytes(held)
        with pytest.raises(RepositoryError) as raised:
            module.load(path, SPEC, "cpu", Options())
        assert said in str(raised.value)
        assert str(raised.value).startswith(f"{path} is ")
        assert f"no {wanted}" in str(raised.value)


def test_each_of_the_two_under_the_name_of_the_other(tmp_path: Path) -> None:
    (tmp_path / "model.pt").write_bytes(one_node())
    with pytest.raises(RepositoryError, match=r"is no TorchScript but an ONNX file, as it seems: call it model\.onnx"):
        torchscript.stated(tmp_path / "model.pt")
    (tmp_path / "model.onnx").write_bytes(archive("m/constants.pkl", "m/data.pkl"))
    with pytest.raises(RepositoryError, match=r"is no ONNX file but TorchScript: call it model\.pt"):
        onnx_runtime.stated(tmp_path / "model.onnx")


@pytest.mark.parametrize(
    ("held", "backend"),
    [
        (one_node(), "onnx_runtime"),
        (archive("m/constants.pkl", "m/data.pkl"), "torchscript"),
        (b"nothing that is known", "torchscript"),
    ],
)
def test_nothing_is_said_of_what_may_be_right(held: bytes, backend: str, tmp_path: Path) -> None:
    (tmp_path / "m").write_bytes(held)
    assert unlike(tmp_path / "m", backend, "file") == ""


def test_what_is_not_there_is_nothing(tmp_path: Path) -> None:
    assert recognised.of(tmp_path / "nowhere") is None
