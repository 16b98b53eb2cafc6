"""A version without a model file is told by what lies there, which most often is the model by another name."""

from __future__ import annotations

import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from serving.repository import strangers


def holds(*names: str, content: bytes = b"something") -> Callable[[Path], None]:
    def made(folder: Path) -> None:
        for name in names:
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_bytes(content)

    return made


def archive(name: str, *inside: str) -> Callable[[Path], None]:
    def made(folder: Path) -> None:
        with zipfile.ZipFile(folder / name, "w") as written:
            for each in inside:
                written.writestr(each, b"")

    return made


@pytest.mark.parametrize(
    ("made", "said"),
    [
        (holds(), "is empty: put it there, or export the model again"),
        (holds(".hidden"), "is empty: put it there, or export the model again"),
        (holds("best.onnx"), "holds best.onnx: rename it to model.onnx"),
        (holds("Model.ONNX", "notes.txt"), "holds Model.ONNX: rename it to model.onnx"),
        (archive("net.pt", "m/constants.pkl", "m/data.pkl"), "holds net.pt: rename it to model.pt"),
        (archive("model.pth", "m/data.pkl"), "holds model.pth, what torch.save wrote, weights or a pickled module: weights need"),
        (holds("best.keras"), "holds best.keras, a file that Keras has saved: a model that Keras has saved goes by"),
        (holds("w.safetensors"), "holds w.safetensors, weights without a model: weights need their module"),
        (holds("net.onnx", content=b"version https://git-lfs"), "holds net.onnx, a pointer of Git LFS, which"),
        (holds("best.keras", content=b""), "holds best.keras, empty: copy it again"),
        (holds("saved_model/saved_model.pb"), "holds saved_model: rename it to model.savedmodel"),
        (holds("saved_model.pb", "variables/a"), "holds saved_model.pb: move it, with variables and assets, into"),
        (holds("export/model.onnx"), "holds export: model.onnx lies one folder too deep, move it up"),
        (holds("spec.json", content=b"{}"), "holds spec.json: export it again"),
        (holds(*"edcba"), "holds a, b, c, d, ...: export it again"),
    ],
)  # fmt: skip
def test_what_lies_there(made: Callable[[Path], None], said: str, tmp_path: Path) -> None:
    made(tmp_path)
    begin = f"the version holds no model file; one of model.onnx, model.pt, model.savedmodel is needed in {tmp_path}, which "
    assert strangers.told(tmp_path).startswith(f"{begin}{said}")


def test_what_config_pbtxt_names_is_looked_at_first(tmp_path: Path) -> None:
    holds("a.onnx", "net.onnx")(tmp_path)
    assert strangers.told(tmp_path, "net.onnx").endswith(
        "holds net.onnx: rename it to model.onnx, and take default_model_filename: 'net.onnx' out of config.pbtxt, as names are "
        "fixed here"
    )
